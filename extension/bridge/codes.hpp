// Our own SQLSTATEs, class PZ. Each has an entry in docs/errors.md; a test compares the two.
#pragma once

#include "bridge/pg.hpp"

#define PORTAGE_SQLSTATE(a, b, c) MAKE_SQLSTATE('P', 'Z', a, b, c)

namespace portage::codes {

// A table, a code a line.
// clang-format off
inline constexpr int invalid_definition = PORTAGE_SQLSTATE('0', '0', '1');   ///< a fault in a pipeline definition
inline constexpr int unusable_target = PORTAGE_SQLSTATE('0', '0', '2');      ///< no usable key, or not a table
inline constexpr int invalid_option = PORTAGE_SQLSTATE('0', '0', '3');       ///< unknown or ill-typed run option
inline constexpr int unknown_pipeline = PORTAGE_SQLSTATE('0', '0', '4');
inline constexpr int unknown_run = PORTAGE_SQLSTATE('0', '0', '5');
inline constexpr int wrong_state = PORTAGE_SQLSTATE('0', '0', '6');          ///< a transition that does not exist
inline constexpr int run_in_progress = PORTAGE_SQLSTATE('0', '0', '7');      ///< a second active run
inline constexpr int blocked = PORTAGE_SQLSTATE('0', '0', '8');              ///< start or run with a blocker
inline constexpr int target_changed = PORTAGE_SQLSTATE('0', '0', '9');       ///< the target's shape is not the recorded one
inline constexpr int source_changed = PORTAGE_SQLSTATE('0', '1', '0');       ///< a file changed or vanished in mid-run
inline constexpr int too_many_rejects = PORTAGE_SQLSTATE('0', '1', '1');     ///< beyond max_rejects
inline constexpr int conflict_failed = PORTAGE_SQLSTATE('0', '1', '2');      ///< on_conflict: fail
inline constexpr int stale_owner = PORTAGE_SQLSTATE('0', '1', '3');          ///< another worker has taken over the range
inline constexpr int payload_mismatch = PORTAGE_SQLSTATE('0', '1', '4');     ///< wrong sha256, or other content under a chunk number
inline constexpr int payload_too_large = PORTAGE_SQLSTATE('0', '1', '5');
inline constexpr int unknown_data_version = PORTAGE_SQLSTATE('0', '1', '6');
inline constexpr int missing_source_column = PORTAGE_SQLSTATE('0', '1', '7');///< a mapped column is not in the CSV header
inline constexpr int conflict_outdated = PORTAGE_SQLSTATE('0', '1', '9');    ///< resolve: the row has changed since it was looked at
inline constexpr int unbalanced = PORTAGE_SQLSTATE('0', '1', '8');           ///< the books of a batch do not balance
inline constexpr int drifted = PORTAGE_SQLSTATE('0', '2', '0');            ///< rollback: rows have changed since
inline constexpr int has_dependants = PORTAGE_SQLSTATE('0', '2', '1');     ///< rollback: other rows refer to them
inline constexpr int verification_failed = PORTAGE_SQLSTATE('0', '2', '2'); ///< a check of severity critical did not pass
inline constexpr int not_a_reject = PORTAGE_SQLSTATE('0', '3', '0');       ///< replay: the item landed, or there is none
inline constexpr int raw_input_missing = PORTAGE_SQLSTATE('0', '3', '1');  ///< replay: no item that could be read again
inline constexpr int invalid_schedule = PORTAGE_SQLSTATE('0', '5', '0');   ///< a cron expression, or windows that leave no time
// clang-format on

}  // namespace portage::codes
