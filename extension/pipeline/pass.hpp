// How the raw loops over a batch (isolate.hpp, merge.cpp) are run: under one subtransaction that remembers
// where it stands, so that a failing value costs one subtransaction and a good row none; and whose fault an
// error is, the item's or that of something around it.
#pragma once

#include "bridge/subxact.hpp"
#include "pipeline/isolate.hpp"

namespace portage {

/// What an SQLSTATE says of whose fault an error is that came of one item.
enum class Blame : uint8_t {
  item,     ///< its own
  unclear,  ///< its own if another item passes now
  outside   ///< nobody's: cancel, serialization failure, deadlock, full or broken disk, corrupt data
};
/// Of an expression, which may call whatever there is.
Blame blame_of_expression(int code);
/// Of making a value of a text: a name in it (regclass) that means nothing is the value's fault.
Blame blame_of_value(int code);
/// Where nothing can be looked at but the value.
Blame blame_of_bytes(int code);

/// Runs one pass. `found` handles what the loop stopped for, `failed` an error that is the item's; both then
/// go on behind it. Where that is unclear, an item that has passed before in the batch is tried once more,
/// with nothing that it writes staying; the error is raised if that one fails as well, or if no item passes
/// at all.
void run_pass(Work& work, Stop (*pass)(Work*), Blame (*blame)(int), const std::function<void(Stop)>& found,
              const std::function<void(const bridge::Error&)>& failed);

/// The error, with the column that it is about.
inline bridge::Error tagged(const bridge::Error& error, const char* column) {
  bridge::Error of_column = error;
  return of_column.column(column);
}

}  // namespace portage
