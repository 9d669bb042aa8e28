// How the raw loops over a batch (isolate.hpp, merge.cpp) are run: under one subtransaction that remembers
// where it stands, so that a failing value costs one subtransaction and a good row none.
#pragma once

#include "bridge/subxact.hpp"
#include "pipeline/isolate.hpp"

namespace portage {

/// Errors inside the author's expressions that no item can be blamed for.
inline bool concerns_pipeline(int code) {
  return bridge::concerns_whole_batch(code) || code == ERRCODE_UNDEFINED_FUNCTION ||
         code == ERRCODE_UNDEFINED_COLUMN || code == ERRCODE_UNDEFINED_PARAMETER;
}

/// Runs one pass. `found` handles what the loop stopped for, `failed` an error; both then go on behind it.
template <class Found, class Failed>
void run_pass(Work& work, Stop (*pass)(Work*), bool (*is_fatal)(int), Found found, Failed failed) {
  work.item = 0;
  work.step = 0;
  Work* w = &work;
  while (true) {
    auto error = bridge::attempt([&] {
      while (true) {
        Stop stop = bridge::guarded([=] { return pass(w); });
        if (stop == Stop::done) return;
        found(stop);
        w->step++;
      }
    });
    if (!error) return;
    if (is_fatal(error->code())) throw *error;
    failed(*error);
    w->step++;
  }
}

/// The error, with the column that it is about.
inline bridge::Error tagged(const bridge::Error& error, const char* column) {
  bridge::Error of_column = error;
  return of_column.column(column);
}

}  // namespace portage
