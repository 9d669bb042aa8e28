// Key functions of the interfaces in reader.hpp. There is nothing here but what every reader shares by
// default.
#include "formats/reader.hpp"

#include "formats/no_postgres.hpp"

namespace portage::formats {

ByteSource::~ByteSource() = default;
Reader::~Reader() = default;
const std::vector<std::string>* Reader::columns() const { return nullptr; }

}  // namespace portage::formats
