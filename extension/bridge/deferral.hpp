// What PostgreSQL would put off to the commit, while users' code runs in a security-restricted context: it is
// done at once instead, so that none of it is left to run later as somebody else. Knows of constraints and
// triggers in general, nothing of targets.
#pragma once

#include "bridge/guard.hpp"

namespace portage::bridge {

/// To be called where users' rows are about to be written. In a security-restricted context, and while this
/// backend is discreet (discretion.hpp), the deferred constraints and constraint triggers of all tables
/// become immediate, and stay so for this transaction or until the entry point returns. In a transaction that
/// others had begun, those of tables for which something of theirs is pending stay as they are: that is
/// theirs to judge. What is deferred nevertheless, PostgreSQL refuses there (42501). Does nothing in any
/// other context.
void defer_nothing();

/// In a transaction of our own, what has been put off so far is done now, and the constraints are deferred
/// again, those of whatever table. False, without having done anything, in the transactions of others, and
/// where nothing is put off anyway (defer_nothing()).
bool judge_deferred();

/// The transaction at hand is our own from its beginning on: nobody has left anything to be judged in it.
void transaction_is_ours();

/// Lives as long as a call from SQL. When the outermost one returns, the constraints that are initially
/// deferred are so again for what the caller's transaction does after that.
class CallFromSql {
 public:
  CallFromSql();
  ~CallFromSql();
  CallFromSql(const CallFromSql&) = delete;
  CallFromSql& operator=(const CallFromSql&) = delete;
  void returns();
};

}  // namespace portage::bridge
