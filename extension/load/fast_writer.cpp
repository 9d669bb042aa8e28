// The writer for ordinary tables: looks rows up by one index scan a batch, and inserts them as COPY does,
// past parser, planner and executor. What it takes from these it does itself: rights, read-only transactions,
// the choice of the table; and deletes what it has locked. Updates, rows that others have changed meanwhile,
// and look-ups of parents are left to SQL.
#include "load/fast_writer.hpp"

#include "bridge/spi.hpp"
#include "load/heap_insert.hpp"
#include "load/key_lookup.hpp"
#include "load/new_keys.hpp"
#include "load/row_reader.hpp"
#include "load/writer_choice.hpp"

namespace portage::load {
namespace {

using bridge::guarded;

/// What opening the target needs to know. Plain.
struct Opening {
  Oid table;
  bool has_exclusion;
  int natts;
  const int *inserted, *read;  ///< attnums, for the rights
  int inserted_count, read_count;
};

/// What the table is opened for.
enum class Access { look, lock, insert, remove };

LOCKMODE lock_of(Access access) {
  return access == Access::look ? AccessShareLock : access == Access::lock ? RowShareLock : RowExclusiveLock;
}

AclMode rights_of(Access access) {
  switch (access) {
    case Access::look:
      return ACL_NO_RIGHTS;
    case Access::lock:
      return ACL_SELECT_FOR_UPDATE;
    case Access::insert:
      return ACL_INSERT;
    default:
      return ACL_DELETE;
  }
}

const char* command_of(Access access) {
  return access == Access::insert ? "INSERT" : access == Access::remove ? "DELETE" : "SELECT FOR UPDATE";
}

/// The open relation, after everything that SQL checks (whether it can be written to at all is in
/// obstacle_raw: it is a table); nullptr if it is not for the fast writer any more.
Relation open_raw(const Opening* o, Access access) {
  LOCKMODE mode = lock_of(access);
  Relation relation = table_open(o->table, mode);
  if (obstacle_raw(relation, o->has_exclusion, o->natts)) {
    table_close(relation, NoLock);
    return nullptr;
  }
  if (bridge::schema_usage_missing(RelationGetNamespace(relation), GetUserId()))
    aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_SCHEMA, get_namespace_name(RelationGetNamespace(relation)));
  bridge::check_rights(bridge::range_table_of(relation, mode, rights_of(access), o->inserted,
                                              access == Access::insert ? o->inserted_count : 0, o->read,
                                              o->read_count));
  if (access != Access::look) {
    if (!RelationUsesLocalBuffers(relation)) PreventCommandIfReadOnly(command_of(access));
    PreventCommandIfParallelMode(command_of(access));
  }
  return relation;
}

/// Fills row_hash from what is stored.
void hash_stored_raw(Item* const* items, int count, const RowHasher& hasher) {
  constexpr int together = 64;
  HashedRow rows[together];
  for (int i = 0; i < count; i += together) {
    int n = Min(together, count - i);
    for (int r = 0; r < n; r++) {
      Item* item = items[i + r];
      rows[r] = {item->stored, item->stored_nulls, &item->row_hash};
    }
    hasher(rows, static_cast<size_t>(n));
  }
}

/// Locks a row as SELECT FOR UPDATE does; false if it is another by now.
bool lock_raw(Relation relation, TupleTableSlot* slot, TupleTableSlot* locked) {
  TM_FailureData failure;
  TM_Result result =
      table_tuple_lock(relation, &slot->tts_tid, GetActiveSnapshot(), locked, GetCurrentCommandId(false),
                       LockTupleExclusive, LockWaitBlock, 0, &failure);
  ExecClearTuple(locked);
  return result == TM_Ok;
}

/// Whether a DELETE has more to do than to delete: constraints that refer to the table are triggers, too.
bool more_to_delete_raw(Relation relation) {
  TriggerDesc* triggers = relation->trigdesc;
  return triggers && (triggers->trig_delete_before_row || triggers->trig_delete_after_row ||
                      triggers->trig_delete_instead_row || triggers->trig_delete_before_statement ||
                      triggers->trig_delete_after_statement || triggers->trig_delete_old_table);
}

/// Deletes rows at places that this transaction has locked. One that it has changed itself since stays.
void remove_raw(Relation relation, const ItemPointerData* places, bool* removed, int count) {
  CheckCmdReplicaIdentity(relation, CMD_DELETE);
  PushActiveSnapshot(GetTransactionSnapshot());
  CommandId command = GetCurrentCommandId(true);
  for (int i = 0; i < count; i++) {
    if ((i & 255) == 0) CHECK_FOR_INTERRUPTS();
    if (!ItemPointerIsValid(&places[i])) continue;
    ItemPointerData place = places[i];
    TM_FailureData failure;
    removed[i] = table_tuple_delete(relation, &place, command, GetActiveSnapshot(), InvalidSnapshot, true,
                                    &failure, false) == TM_Ok;
  }
  PopActiveSnapshot();
  CommandCounterIncrement();
}

class FastWriter final : public Writer {
 public:
  FastWriter(Plan& plan, const std::vector<int>& hash_columns, std::unique_ptr<Writer> sql);

  std::vector<Row> find_by_match(Batch&, const std::vector<Item*>&) override;
  std::vector<Row> find_by_key(Batch&, const std::vector<std::string_view>& keys, bool lock) override;
  void insert(Batch&, const std::vector<Item*>&) override;
  void update(Batch& batch, std::vector<Update*>& updates) override {
    if (new_keys_ && !updates.empty()) new_keys_->give_up();  // a row may get another key
    sql_->update(batch, updates);
  }
  std::vector<bool> remove(const std::vector<const Row*>& rows) override;
  std::vector<size_t> without_parent(Batch& batch, const ForeignKey& key,
                                     const std::vector<Item*>& items) override {
    return sql_->without_parent(batch, key, items);
  }
  void check_deferred() override { sql_->check_deferred(); }
  void reread(Batch& batch, const std::vector<Item*>& inserts, const std::vector<Update*>& updates) override {
    sql_->reread(batch, inserts, updates);
  }

 private:
  bool find(Batch&, const KeyLookup&, Access, const std::vector<bridge::Sought>&,
            std::vector<Row>& found) const;

  Plan& plan_;
  std::unique_ptr<Writer> sql_;
  bridge::Memory memory_;
  RowReader rows_;
  std::vector<int> inserted_;
  std::optional<KeyLookup> by_match_, by_key_;
  std::unique_ptr<NewKeys> new_keys_;  // of the columns of match
  Opening opening_{};
  HeapInsert* insert_ = nullptr;
};

FastWriter::FastWriter(Plan& plan, const std::vector<int>& hash_columns, std::unique_ptr<Writer> sql)
    : plan_(plan),
      sql_(std::move(sql)),
      memory_("portage fast writer", PortalContext ? PortalContext : CurrentMemoryContext),
      rows_(plan, hash_columns, memory_.get()),
      inserted_(inserted_columns(plan)) {
  const Target& target = plan.target();
  if (!plan.match().empty()) by_match_ = KeyLookup::make(target, plan.match());
  by_key_ = KeyLookup::make(target, plan.key());
  if (by_match_) new_keys_ = std::make_unique<NewKeys>(target, plan.match());
  const std::vector<int>& read = rows_.columns();
  opening_.table = target.oid;
  opening_.has_exclusion = target.has_exclusion;
  opening_.natts = target.natts;
  opening_.inserted = inserted_.data();
  opening_.inserted_count = static_cast<int>(inserted_.size());
  opening_.read = read.data();
  opening_.read_count = static_cast<int>(read.size());
  MemoryContext memory = memory_.get();
  TupleDesc shape = target.shape;
  insert_ = guarded([=] {
    auto* insert = static_cast<HeapInsert*>(MemoryContextAllocZero(memory, sizeof(HeapInsert)));
    MemoryContext previous = MemoryContextSwitchTo(memory);
    insert->shape = CreateTupleDescCopy(shape);
    MemoryContextSwitchTo(previous);
    return insert;
  });
  insert_->given = opening_.inserted;
  insert_->given_count = opening_.inserted_count;
  insert_->read = opening_.read;
  insert_->read_count = opening_.read_count;
  insert_->slot_memory = memory;
}

/// False if SQL has to look.
bool FastWriter::find(Batch& batch, const KeyLookup& lookup, Access access,
                      const std::vector<bridge::Sought>& sought, std::vector<Row>& found) const {
  bridge::Memory scratch("portage fast look-up");
  bridge::InMemory in(scratch.get());
  const Opening* opening = &opening_;
  Relation relation = guarded([=] {
    CommandCounterIncrement();  // as a statement would
    return open_raw(opening, access);
  });
  if (!relation) return false;
  if (by_match_ && &lookup == &*by_match_ && !new_keys_->begun()) new_keys_->begin(relation, sought);
  bool as_looked = true;
  TupleTableSlot* locked =
      access == Access::lock ? guarded([=] { return table_slot_create(relation, nullptr); }) : nullptr;
  bridge::PlainText plain;
  bool done = lookup.find(relation, sought, [&](size_t i, TupleTableSlot* slot) {
    if (locked) as_looked = as_looked && guarded(lock_raw, relation, slot, locked);
    if (!as_looked) return;
    found[i] = rows_.read(batch, slot);
    if (locked) found[i].locked = slot->tts_tid;
  });
  guarded([=] {
    if (locked) ExecDropSingleTupleTableSlot(locked);
    table_close(relation, NoLock);
  });
  return done && as_looked;
}

std::vector<Row> FastWriter::find_by_match(Batch& batch, const std::vector<Item*>& items) {
  std::vector<Row> found(items.size());
  if (items.empty() || plan_.match().empty()) return found;
  std::vector<bridge::Sought> sought;
  for (const Item* item : items) sought.push_back({item->values, item->nulls});
  if (by_match_ && new_keys_->helps()) {
    std::vector<size_t> positions = new_keys_->perhaps(sought);
    std::vector<bridge::Sought> few;
    for (size_t i : positions) few.push_back(sought[i]);
    std::vector<Row> rows(few.size());
    if (few.empty() || find(batch, *by_match_, Access::look, few, rows)) {
      for (size_t j = 0; j < positions.size(); j++) found[positions[j]] = rows[j];
      return found;
    }
  }
  if (by_match_ && find(batch, *by_match_, Access::look, sought, found)) return found;
  return sql_->find_by_match(batch, items);
}

std::vector<Row> FastWriter::find_by_key(Batch& batch, const std::vector<std::string_view>& keys, bool lock) {
  std::vector<Row> found(keys.size());
  if (keys.empty()) return found;
  if (!by_key_) return sql_->find_by_key(batch, keys, lock);
  std::vector<bridge::Sought> sought;
  size_t natts = static_cast<size_t>(plan_.target().natts);
  auto* nulls = batch.arena.make_array<bool>(natts);
  memset(nulls, false, natts);
  {
    bridge::PlainText plain;
    for (std::string_view key : keys) {
      const Datum* parts = key_values(batch, plan_, key);
      auto* values = batch.arena.make_array<Datum>(natts);
      for (size_t k = 0; k < plan_.key().size(); k++) values[plan_.key()[k] - 1] = parts[k];
      sought.push_back({values, nulls});
    }
  }
  if (find(batch, *by_key_, lock ? Access::lock : Access::look, sought, found)) return found;
  return sql_->find_by_key(batch, keys, lock);
}

void FastWriter::insert(Batch& batch, const std::vector<Item*>& items) {
  if (items.empty()) return;
  size_t natts = static_cast<size_t>(plan_.target().natts);
  {
    bridge::Memory scratch("portage fast insert");
    bridge::InMemory in(scratch.get());
    const Opening* opening = &opening_;
    Relation relation = guarded([=] { return open_raw(opening, Access::insert); });
    if (!relation) {
      if (new_keys_) new_keys_->give_up();
      sql_->insert(batch, items);
      return;
    }
    HeapInsert* insert = insert_;
    MemoryContext batch_memory = batch.memory.get();
    int count = static_cast<int>(items.size());
    guarded(begin_insert_raw, insert, relation, batch_memory, count);
    auto* stored = batch.arena.make_array<Datum>(natts * items.size());
    auto* stored_nulls = batch.arena.make_array<bool>(natts * items.size());
    Item* const* all = items.data();
    const RowHasher* hasher = &rows_.row_hasher();
    try {
      guarded([=] {
        for (int i = 0; i < count; i++) {
          size_t first = natts * static_cast<size_t>(i);
          all[i]->stored = stored + first;
          all[i]->stored_nulls = stored_nulls + first;
          insert_raw(insert, all[i], stored + first, stored_nulls + first);
        }
        end_insert_raw(insert);
        table_close(relation, NoLock);
        hash_stored_raw(all, count, *hasher);
      });
    } catch (const bridge::Error& error) {
      if (new_keys_ && error.code() == ERRCODE_UNIQUE_VIOLATION) new_keys_->give_up();
      throw;
    }
  }
  if (new_keys_ && new_keys_->helps()) {
    std::vector<bridge::Sought> rows;
    for (const Item* item : items) rows.push_back({item->stored, item->stored_nulls});
    new_keys_->add(rows);
  }
  bridge::PlainText plain;
  plan_.name_keys(batch, items);
}

std::vector<bool> FastWriter::remove(const std::vector<const Row*>& rows) {
  std::vector<bool> removed(rows.size(), false);
  bridge::Memory scratch("portage fast delete");
  bridge::InMemory in(scratch.get());
  const Opening* opening = &opening_;
  Relation relation = guarded([=] { return open_raw(opening, Access::remove); });
  if (!relation) return removed;
  if (more_to_delete_raw(relation)) {
    guarded([=] { table_close(relation, NoLock); });
    return removed;
  }
  int count = static_cast<int>(rows.size());
  auto* places =
      guarded([=] { return static_cast<ItemPointerData*>(palloc0(sizeof(ItemPointerData) * (count + 1))); });
  auto* done = guarded([=] { return static_cast<bool*>(palloc0(static_cast<size_t>(count) + 1)); });
  for (size_t i = 0; i < rows.size(); i++)
    if (rows[i]->locked) places[i] = *rows[i]->locked;
  guarded([=] {
    remove_raw(relation, places, done, count);
    table_close(relation, NoLock);
  });
  removed.assign(done, done + count);
  return removed;
}

}  // namespace

std::unique_ptr<Writer> make_fast_writer(Plan& plan, const std::vector<int>& hash_columns,
                                         std::unique_ptr<Writer> sql) {
  return std::make_unique<FastWriter>(plan, hash_columns, std::move(sql));
}

}  // namespace portage::load
