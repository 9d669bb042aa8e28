// See sequences.hpp.
#include "load/sequences.hpp"

#include "bridge/spi.hpp"

extern "C" {
#include "commands/sequence.h"
#include "storage/lmgr.h"
#include "utils/fmgrprotos.h"
}

namespace portage::load {

using bridge::guarded;

namespace {

/// So many numbers are rather drawn than waited for.
constexpr uint64_t most_drawn = 100000;

constexpr const char* descending = "it descends";

bool is_integer(Oid type) { return type == INT2OID || type == INT4OID || type == INT8OID; }

bool may_raw(Oid sequence, AclMode mode) {
  return pg_class_aclcheck(sequence, GetUserId(), mode) == ACLCHECK_OK;
}

int64 integer_of(Oid type, Datum value) {
  return type == INT2OID   ? DatumGetInt16(value)
         : type == INT4OID ? DatumGetInt32(value)
                           : DatumGetInt64(value);
}

/// The last number that was drawn; one below the first, if none was.
int64 last_raw(Oid sequence, int64 start) {
  LOCAL_FCINFO(call, 1);
  InitFunctionCallInfoData(*call, nullptr, 1, InvalidOid, nullptr, nullptr);
  call->args[0].value = ObjectIdGetDatum(sequence);
  call->args[0].isnull = false;
  Datum last = pg_sequence_last_value(call);
  return call->isnull ? start - 1 : DatumGetInt64(last);
}

enum class Follow : uint8_t { not_behind, done, held };

/// Who draws a number holds a lock on the sequence until its transaction ends: while nobody does, one can
/// look and set. Else numbers are drawn until it is far enough.
Follow follow_raw(Oid sequence, int64 start, int64 value) {
  if (last_raw(sequence, start) >= value) return Follow::not_behind;
  if (ConditionalLockRelationOid(sequence, ShareRowExclusiveLock)) {
    bool behind = last_raw(sequence, start) < value;
    if (behind) (void)DirectFunctionCall2(setval_oid, ObjectIdGetDatum(sequence), Int64GetDatum(value));
    UnlockRelationOid(sequence, ShareRowExclusiveLock);
    return behind ? Follow::done : Follow::not_behind;
  }
  uint64 ahead = static_cast<uint64>(value) - static_cast<uint64>(last_raw(sequence, start));  // any distance
  if (ahead > most_drawn) return Follow::held;
  while (nextval_internal(sequence, false) < value) CHECK_FOR_INTERRUPTS();
  return Follow::done;
}

}  // namespace

std::vector<ColumnSequence> column_sequences(const Plan& plan) {
  std::vector<ColumnSequence> sequences;
  const Target& target = plan.target();
  bool any = std::any_of(plan.mapped().begin(), plan.mapped().end(), [&](int attnum) {
    return target.column(attnum).has_default && is_integer(target.column(attnum).type);
  });
  if (!any) return sequences;
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  static const bridge::Statement select(
      "SELECT a.attnum::integer, q.seqrelid, q.seqrelid::regclass::text, q.seqstart, q.seqmax, CASE WHEN "
      "q.seqincrement < 0 THEN 'it descends' WHEN q.seqcache > 1 THEN 'sessions keep numbers of it' WHEN "
      "(SELECT count(*) FROM pg_depend o WHERE o.classid = 'pg_attrdef'::regclass AND o.refclassid = "
      "'pg_class'::regclass AND o.refobjid = q.seqrelid) > 1 THEN 'other columns draw from it, too' ELSE '' "
      "END "
      "FROM pg_attribute a JOIN LATERAL (SELECT d.objid AS sequence FROM pg_depend d WHERE d.classid = "
      "'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND "
      "d.refobjsubid = a.attnum AND d.deptype = 'i' AND a.attidentity <> '' UNION SELECT d.refobjid FROM "
      "pg_attrdef f JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND "
      "d.refclassid "
      "= 'pg_class'::regclass WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum AND a.attgenerated = '' "
      "AND "
      "pg_get_expr(f.adbin, f.adrelid) ~ '^nextval\\(') s ON true JOIN pg_sequence q ON q.seqrelid = "
      "s.sequence "
      "WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1");
  bridge::Result rows = select({bridge::param_oid(target.oid)});
  bool leave = plan.definition().leave_sequences;
  for (size_t i = 0; i < rows.size(); i++) {
    int attnum = rows.integer(i, 1);
    if (!std::binary_search(plan.mapped().begin(), plan.mapped().end(), attnum) ||
        !is_integer(target.column(attnum).type))
      continue;
    ColumnSequence sequence{attnum,         target.column(attnum).name, rows.text(i, 3),
                            rows.oid(i, 2), rows.bigint(i, 4),          rows.bigint(i, 5),
                            rows.text(i, 6)};
    Oid oid = sequence.oid;
    if (sequence.reason.empty() && leave) sequence.reason = "the definition says so";
    if (sequence.reason.empty() &&
        !guarded([=] { return may_raw(oid, ACL_UPDATE) && may_raw(oid, ACL_USAGE | ACL_SELECT); }))
      sequence.reason = "the role may not set it";
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

std::vector<SequenceStep> Sequences::follow(const Item* items, size_t n, const Target& target) {
  std::vector<SequenceStep> steps;
  for (const ColumnSequence& sequence : all_) {
    bool descends = sequence.reason == descending;
    std::optional<int64_t> farthest;  // in the direction of the sequence
    Oid type = target.column(sequence.attnum).type;
    for (size_t i = 0; i < n; i++) {
      const Item& item = items[i];
      bool written = item.outcome == Outcome::inserted || item.outcome == Outcome::updated;
      if (!written || !item.stored || item.stored_nulls[sequence.attnum - 1]) continue;
      int64_t value = integer_of(type, item.stored[sequence.attnum - 1]);
      if (!farthest || (descends ? value < *farthest : value > *farthest)) farthest = value;
    }
    auto late = behind_.find(sequence.oid);
    if (late != behind_.end() && sequence.reason.empty())
      farthest = std::max(farthest.value_or(0), late->second);
    if (!farthest || (!descends && *farthest > sequence.greatest)) continue;
    Oid oid = sequence.oid;
    int64_t start = sequence.start, value = *farthest;
    if (!sequence.reason.empty()) {
      if (late != behind_.end()) continue;
      bool behind = guarded([=] {
        if (!may_raw(oid, ACL_USAGE | ACL_SELECT)) return true;
        return descends ? last_raw(oid, start + 2) > value : last_raw(oid, start) < value;
      });
      if (!behind) continue;
      behind_[oid] = value;
      steps.push_back({&sequence, value, false});
      continue;
    }
    Follow outcome = guarded(follow_raw, oid, static_cast<int64>(start), static_cast<int64>(value));
    if (outcome == Follow::held) {
      behind_[oid] = value;
      steps.push_back({&sequence, value, false});
      continue;
    }
    behind_.erase(oid);
    if (outcome == Follow::done) steps.push_back({&sequence, value, true});
  }
  return steps;
}

}  // namespace portage::load
