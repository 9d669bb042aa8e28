// The writer for ordinary tables; see writer.hpp and writer_choice.hpp.
#pragma once

#include "load/writer.hpp"

namespace portage::load {

/// `sql` does what this writer leaves to SQL.
std::unique_ptr<Writer> make_fast_writer(Plan&, const std::vector<int>& hash_columns,
                                         std::unique_ptr<Writer> sql);

}  // namespace portage::load
