// Writing many things of which some may be refused: all in one subtransaction, and what fails is halved,
// until it is known which are at fault. Never a savepoint for each.
#pragma once

#include "bridge/subxact.hpp"

namespace portage::bridge {

class Halving {
 public:
  /// To be called where a transaction begins.
  void begin() { used_ = 0; }
  bool exhausted() const { return used_ >= most; }
  /// After over() has returned false: the first position that was not settled.
  size_t stopped_at() const { return stopped_at_; }

  /// Does work(low, high) in a subtransaction. Where it raises an error, failed(low, high, error) takes back
  /// what is not the database's, or raises what halving does not help against; for a single position it also
  /// says what becomes of it: true, that it is to be tried again. False if the transaction's subtransactions
  /// are used up.
  template <class Work, class Failed>
  bool over(size_t low, size_t high, const Work& work, const Failed& failed) {
    if (low >= high) return true;
    if (exhausted()) {
      stopped_at_ = low;
      return false;
    }
    used_++;
    check_interrupts();
    std::optional<Error> error = attempt([&] { work(low, high); });
    if (!error) return true;
    bool again = failed(low, high, *error);
    if (high - low == 1) return !again || over(low, high, work, failed);
    size_t middle = low + (high - low) / 2;
    return over(low, middle, work, failed) && over(middle, high, work, failed);
  }

 private:
  /// Subtransactions that write take an xid, and a backend keeps 64 of them cheaply: one transaction takes
  /// half.
  static constexpr int most = 32;

  int used_ = 0;
  size_t stopped_at_ = 0;
};

}  // namespace portage::bridge
