// Subtransactions: the only licence to swallow a Postgres error. attempt() runs C++ code in one and gives
// back the error, everything that the code wrote being gone.
#pragma once

#include "bridge/spi.hpp"

namespace portage::bridge {

/// A subtransaction that is rolled back unless released. Restores memory context and resource owner.
class Subtransaction {
 public:
  Subtransaction();
  ~Subtransaction();
  Subtransaction(const Subtransaction&) = delete;
  Subtransaction& operator=(const Subtransaction&) = delete;
  void release();
  void rollback();

 private:
  MemoryContext context_;
  ResourceOwner owner_;
  bool open_ = false;
};

/// True for errors that are nobody's item's fault: cancel, shutdown, out of resources, lost connections, lock
/// and serialization failures, missing privileges, internal errors. They end the batch, never one item.
bool concerns_whole_batch(int sqlerrcode);

/// True for the cancel or the shutdown of this session: nobody's fault, and never to be swallowed.
bool is_interrupt(int sqlerrcode);

/// Runs `f` in a subtransaction. Returns the Postgres (or own) error after rolling back, nothing if all went
/// well. Other exceptions roll back and pass.
template <class F>
std::optional<Error> attempt(F&& f) {
  Subtransaction subtransaction;
  try {
    f();
    subtransaction.release();
    return std::nullopt;
  } catch (const Error& error) {
    subtransaction.rollback();
    return error;
  }
}

/// Runs `f` as a transaction of its own, in a procedure that may commit: likewise, with the commit. After an
/// error all is rolled back.
template <class F>
std::optional<Error> transact(F&& f) {
  std::optional<Error> error = attempt(f);
  if (!error) {
    try {
      commit();
      return std::nullopt;
    } catch (const Error& at_commit) {
      error = at_commit;
    }
  }
  rollback();
  return error;
}

}  // namespace portage::bridge
