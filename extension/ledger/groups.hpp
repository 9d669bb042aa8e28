// Groups of runs: their rows, and which run waits for which. What is to be done with a group is decided by
// group/, who may do it by the callers.
#pragma once

#include "ledger/roles.hpp"

namespace portage::ledger {

/// A group as it stands in the ledger.
struct Group {
  int64_t id = 0;
  std::string status;  ///< running, completed, failed, cancelled, rolling_back, rolled_back
  std::string scope;
  Role role;                ///< of its runs
  int32_t workers = 0;      ///< members that may be worked on at a time
  bool background = false;  ///< background workers are to do it
};

/// A run of a group, with what it waits for.
struct Member {
  int64_t run = 0;
  std::string pipeline;
  int32_t level = 0;
  std::vector<int64_t> waits_for;  ///< runs of the same group
  bool again = false;              ///< failed, and to be tried again in its turn
  std::string reason;              ///< why it is not begun; "" if nothing stands against it
  std::string status;              ///< of the run
  bool owner_alive = false;        ///< somebody works on it
  bool begun = false, dry_run = false;
  int64_t parked = 0;
};

int64_t insert_group(const Group&, const std::string& options);  ///< role: the current one
void insert_member(int64_t group, const Member&);                ///< marks the run, too
std::optional<Group> find_group(int64_t id);
/// The same, and nobody else changes it until the end of the transaction. Nothing also where somebody else
/// does at this moment and `wait` is false.
std::optional<Group> lock_group(int64_t id, bool wait);
/// Those of whose members background workers are to take the next.
std::vector<Group> groups_in_background();
/// In the order in which they are begun.
std::vector<Member> members_of(int64_t group);
void note_member(int64_t group, const Member&);  ///< again and reason
/// `error`: what it ended with; "" for none.
void set_group_status(int64_t id, const std::string& status, const std::string& error = "");
void set_group_background(int64_t id);

}  // namespace portage::ledger
