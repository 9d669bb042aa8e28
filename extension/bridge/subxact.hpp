// Where errors are caught: the only licence to swallow one is to have rolled back the subtransaction in which
// it was raised. attempt() runs C++ code in a subtransaction of its own, committing() in the transactions of
// a procedure, and each gives back the error, everything that the code wrote or had open being gone.
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
  SubTransactionId id_ = InvalidSubTransactionId;
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
  std::optional<Error> caught;
  try {
    f();
    subtransaction.release();
  } catch (const Error& error) {
    caught = error;
  }
  if (caught) subtransaction.rollback();
  return caught;
}

/// Runs `f`, which commits as it goes, in a procedure that may. After an error all that was not committed is
/// rolled back, and unwound. Other exceptions pass, and end the procedure.
template <class F>
std::optional<Error> committing(F&& f) {
  std::optional<Error> caught;
  try {
    f();
  } catch (const Error& error) {
    caught = error;
  }
  if (caught) rollback();
  return caught;
}

/// Runs `f` as a transaction of its own, in a procedure that may commit: likewise, with the commit.
template <class F>
std::optional<Error> transact(F&& f) {
  return committing([&] {
    f();
    commit();
  });
}

}  // namespace portage::bridge
