// Which writer serves a target: the fast one where nothing but PostgreSQL's own constraints, indexes and
// AFTER ROW triggers has a say in what is written, the SQL writer everywhere else.
#pragma once

#include "load/writer.hpp"

namespace portage::load {

struct WriterChoice {
  std::string_view name;  ///< "fast" or "sql"
  std::string reason;
};

/// For the current user, as things stand.
WriterChoice choose_writer(const Target&);

/// Raw code: what keeps the fast writer from an open relation, for the current user; nullptr if nothing does.
/// It is asked at each opening, since the relation and the user's rights can change between batches.
const char* obstacle_raw(Relation, bool has_exclusion, int natts);

}  // namespace portage::load
