// What holds for a stretch of code and is undone at its end: memory contexts, the current user, settings. All
// are RAII; none raises in its destructor.
#pragma once

#include "bridge/guard.hpp"

namespace portage::bridge {

/// A memory context of our own, deleted at the end. Not current until one enters it.
class Memory {
 public:
  explicit Memory(const char* name /* a literal */, MemoryContext parent = CurrentMemoryContext);
  ~Memory() {
    if (context_) MemoryContextDelete(context_);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  MemoryContext get() const { return context_; }
  void reset() { MemoryContextReset(context_); }

 private:
  MemoryContext context_;
};

/// Makes a memory context current for a block.
class InMemory {
 public:
  explicit InMemory(MemoryContext context) : previous_(MemoryContextSwitchTo(context)) {}
  ~InMemory() { MemoryContextSwitchTo(previous_); }
  InMemory(const InMemory&) = delete;
  InMemory& operator=(const InMemory&) = delete;

 private:
  MemoryContext previous_;
};

/// Acts as a role for a block. `flags`: SECURITY_LOCAL_USERID_CHANGE for plain access, with
/// SECURITY_RESTRICTED_OPERATION where the code that runs is somebody else's. That is added unless the role
/// could become, by itself, the present role and whoever the session belongs to: its triggers and functions
/// must leave nothing behind (deferred triggers, cursors, settings) that would act with more rights than its
/// own when the block is over. SET ROLE is no such boundary: code may take it back (RESET ROLE).
class AsUser {
 public:
  explicit AsUser(Oid user, int flags = SECURITY_LOCAL_USERID_CHANGE);
  ~AsUser() {
    if (level_) AtEOXact_GUC(false, level_);
    SetUserIdAndSecContext(user_, context_);
  }
  AsUser(const AsUser&) = delete;
  AsUser& operator=(const AsUser&) = delete;

 private:
  Oid user_;
  int context_, level_ = 0;
};

/// Who stands behind the current user: the session's own role where the current user is that one or one that
/// it has SET to. Else, in a function with rights of its own or in an index's expression, say, the current
/// user alone: whoever the session belongs to has not asked for what happens there.
Oid session_of_current_user();

/// Settings that hold for a block, as SET clauses of a function do. Must end before the subtransaction in
/// which it began does.
class Settings {
 public:
  Settings() : level_(NewGUCNestLevel()) {}
  ~Settings() { AtEOXact_GUC(true, level_); }
  Settings(const Settings&) = delete;
  Settings& operator=(const Settings&) = delete;
  Settings& set(const char* name, const std::string& value);
  /// The search_path under which one role's SQL is read in another's session: temporary objects come last,
  /// wherever they stand in it. Unnamed, they would come first, and they are the session's.
  Settings& set_path_of_another(const std::string& search_path);

 private:
  int level_;
};

/// Nothing can be written for a block. Not by the setting: from 16 on it cannot be changed for a block only.
/// In a subtransaction, and once a snapshot has been taken, no code that runs here can switch it off (25001).
class OnlyReading {
 public:
  OnlyReading() : before_(XactReadOnly) { XactReadOnly = true; }
  ~OnlyReading() { XactReadOnly = before_; }
  OnlyReading(const OnlyReading&) = delete;
  OnlyReading& operator=(const OnlyReading&) = delete;

 private:
  bool before_;
};

/// Statements that look rows up by key must use the index, however small the planner believes the table to
/// be: one scan of a whole table per batch would make a run quadratic.
class ByIndex {
 public:
  explicit ByIndex(bool on = true) {
    if (on)
      // What is switched off counts as very dear to the planner, and what is very dear gets compiled.
      settings_.set("enable_seqscan", "off")
          .set("enable_hashjoin", "off")
          .set("enable_mergejoin", "off")
          .set("jit", "off");
  }

 private:
  Settings settings_;
};

/// Settings under which values become text and text values: the same for every session, so that keys compare
/// and before-images return as they were.
class PlainText {
 public:
  PlainText();

 private:
  Settings settings_;
};

}  // namespace portage::bridge
