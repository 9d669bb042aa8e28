"""Damages for tests/e2e/sabotage.py: what can be done to target and ledger behind the extension's back, with the check
that must find it and how it must name it. A world is that of the test: two runs, `first` and `second`, and `loose`."""

OUTCOMES = ('inserted', 'updated', 'unchanged', 'skipped', 'conflicted', 'parked', 'invalid', 'failed')


class Damage:
    """What is done (to be rolled back), the run to be verified, the check that must find it, and how it must name it: at
    least one of these texts. told: it cannot be told from what a user did, and is counted as changed since."""

    def __init__(self, run, sql, check_name, *names, told=False, warning=False):
        self.run, self.sql, self.check, self.names = run, sql, check_name, names
        self.told, self.warning = told, warning


class Saboteur:
    """Each method is a kind of damage; the choice of run and item is random."""

    def __init__(self, world, rng):
        self.world, self.random = world, rng
        self.kinds = sorted(name for name in dir(self) if name.startswith('k_'))

    def pick(self, *statuses, own=True):
        """(run, ordinal) of an item with one of these outcomes; own: its mapping still is its own."""
        world = self.world
        found = []
        for run in (world.first, world.second):
            for ordinal in world.items(run, *statuses):
                # items 1 to 10 of the first run were taken over by the second one
                mine = world.value('SELECT count(*) FROM portage.legacy_mappings WHERE run_id = %s AND ordinal = %s', run, ordinal)
                if not own or mine:
                    found.append((run, ordinal))
        return self.random.choice(found)

    def mapping(self, change, check_name, *statuses, names=None, told=False):
        run, ordinal = self.pick(*(statuses or ('inserted', 'updated')))
        return Damage(run, f"UPDATE portage.mapping_rows SET {change} WHERE run_id = {run} AND ordinal = {ordinal}",
                      check_name, *(names or (f'item {ordinal}:', f'"item {ordinal}, key ')), told=told)

    # the target

    def k_value_changed(self):
        run, ordinal = self.pick('inserted', 'updated', 'unchanged')
        key = self.world.key(run, ordinal)
        change = self.random.choice(('v = v + 1', "note = note || '!'", 'note = NULL', 'shop = 1 + shop % 5'))
        if 'NULL' in change:
            change = "note = CASE WHEN note IS NULL THEN 'x' END"
        return Damage(run, f'UPDATE app.goods SET {change} WHERE id = {key}', 'row_hash', f'item {ordinal}, key {key}', told=True)

    def k_row_deleted(self):
        run, ordinal = self.pick('inserted', 'updated', 'unchanged')
        key = self.world.key(run, ordinal)
        return Damage(run, f'DELETE FROM app.goods WHERE id = {key}', 'row_hash', f'item {ordinal}, key {key}', told=True)

    def k_parent_deleted(self):
        run = self.world.first
        shop = self.random.randint(1, 5)
        key = self.world.key(run, next(n for n in range(11, 41) if 1 + n % 5 == shop))
        return Damage(run, f"SET LOCAL session_replication_role = replica; DELETE FROM app.shops WHERE id = {shop}; "
                      "SET LOCAL session_replication_role = origin", 'relationships', f'goods_shop_fkey: ', f'keys {key}')

    def k_row_doubled(self):
        n = self.random.randint(1, 7)
        return Damage(self.world.loose, f"INSERT INTO app.loose (k, v) SELECT k, v FROM app.loose WHERE k = 'k{n}'",
                      'duplicate_match', f'(k{n}): 2 rows', warning=True)

    # mappings

    def k_mapping_key(self):
        run, ordinal = self.pick('inserted', 'updated')
        other = self.world.key(run, self.random.choice([n for n in self.world.items(run, 'inserted') if n != ordinal]))
        return Damage(run, f"UPDATE portage.mapping_rows SET target_key = '{other}' WHERE run_id = {run} AND ordinal = {ordinal}",
                      'mapping', f'item {ordinal}: mapping says key {other}')

    def k_mapping_deleted(self):
        run, ordinal = self.pick('inserted', 'updated')
        return Damage(run, f'DELETE FROM portage.mapping_rows WHERE run_id = {run} AND ordinal = {ordinal}', 'mapping',
                      f'item {ordinal}: no mapping')

    def k_mapping_of_unchanged_deleted(self):
        ordinal = self.random.randint(11, 20)
        return Damage(self.world.second, f"DELETE FROM portage.mapping_rows WHERE legacy_id = '{ordinal}'", 'mapping',
                      f'item {ordinal}: unchanged, but no mapping')

    def k_mapping_source_hash(self):
        return self.mapping('source_hash = source_hash # 1', 'source', 'inserted', 'updated', 'unchanged')

    def k_mapping_source_hash_seen_in_the_row(self):
        return self.mapping('source_hash = source_hash # 1', 'row_hash', 'inserted')

    def k_mapping_row_hash(self):
        return self.mapping('row_hash = row_hash # 1', 'row_hash', 'inserted', 'updated', 'unchanged', told=True)

    def k_mapping_run(self):
        run = self.random.choice((self.world.first, self.world.second, 4711))
        damage = self.mapping(f'run_id = {run}', 'mapping')
        return damage if run != damage.run else self.k_mapping_run()

    def k_mapping_ordinal(self):
        return self.mapping(f'ordinal = ordinal + {self.random.choice((1, -1, 100))}', 'mapping')

    def k_mapping_origin(self):
        return self.mapping("origin = 'adopted'", 'mapping')

    def k_mapping_id(self):
        return self.mapping("legacy_id = legacy_id || ' else'", 'mapping')

    def k_mapping_invented(self):
        run = self.random.choice((self.world.first, self.world.second))
        return Damage(run, f"INSERT INTO portage.mapping_rows SELECT pipeline_id, '', 'invented', '4711', 'inserted', 1, 1, {run}, 15 "
                      f"FROM portage.migration_runs WHERE id = {run}", 'mapping', 'mapping of invented: no item')

    # items

    def k_item_removed(self):
        run, ordinal = self.pick(*OUTCOMES, own=False)
        return Damage(run, f'DELETE FROM portage.item_rows WHERE run_id = {run} AND ordinal = {ordinal}', 'item_count', f'"{ordinal}"')

    def k_item_invented(self):
        run, ordinal = self.pick('inserted', own=False)
        return Damage(run, f'INSERT INTO portage.item_rows SELECT run_id, 999, 0, part, line, byte_offset, byte_length, status, '
                      f'legacy_id, target_key FROM portage.item_rows WHERE run_id = {run} AND ordinal = {ordinal}',
                      'item_count', 'item 999: in no batch')

    def k_item_status(self):
        run, ordinal = self.pick(*OUTCOMES, own=False)
        status = self.world.value('SELECT status FROM portage.item_rows WHERE run_id = %s AND ordinal = %s', run, ordinal)
        other = self.random.choice([one for one in OUTCOMES if one != status])
        batch, first, last = self.world.batch_of(run, ordinal)
        return Damage(run, f"UPDATE portage.item_rows SET status = '{other}' WHERE run_id = {run} AND ordinal = {ordinal}", 'balance',
                      f'batch {batch} (items {first} to {last}), {other}: ')

    def k_item_landed_after_all(self):
        run, ordinal = self.pick('invalid', 'skipped', own=False)
        return Damage(run, f"UPDATE portage.item_rows SET status = 'inserted' WHERE run_id = {run} AND ordinal = {ordinal}", 'balance',
                      f'item {ordinal}: is inserted, what is recorded with it says otherwise')

    def k_item_rejected_after_all(self):
        run, ordinal = self.pick('inserted', 'updated', 'unchanged', own=False)
        return Damage(run, f"UPDATE portage.item_rows SET status = 'invalid' WHERE run_id = {run} AND ordinal = {ordinal}", 'balance',
                      f'item {ordinal}: is invalid, what is recorded with it says otherwise')

    def k_item_legacy_id(self):
        run, ordinal = self.pick('inserted', 'updated', 'unchanged', own=False)
        return Damage(run, f"UPDATE portage.item_rows SET legacy_id = 'else' WHERE run_id = {run} AND ordinal = {ordinal}", 'mapping',
                      f'item {ordinal}: ')

    def k_reject_legacy_id(self):
        run, ordinal = self.pick('invalid', own=False)
        return Damage(run, f"UPDATE portage.item_rows SET legacy_id = 'else' WHERE run_id = {run} AND ordinal = {ordinal}", 'source',
                      f'item {ordinal}: its legacy id is ')

    def k_item_key(self):
        run, ordinal = self.pick('inserted', 'updated', own=False)
        return Damage(run, f"UPDATE portage.item_rows SET target_key = '4711' WHERE run_id = {run} AND ordinal = {ordinal}", 'mapping',
                      f'item {ordinal}: ')

    def k_item_place(self):
        run, ordinal = self.pick(*OUTCOMES, own=False)
        column = self.random.choice(('line', 'byte_offset', 'byte_length'))
        return Damage(run, f'UPDATE portage.item_rows SET {column} = {column} + 1 WHERE run_id = {run} AND ordinal = {ordinal}', 'source',
                      f'item {ordinal}: stands elsewhere')

    def k_item_part(self):
        run, ordinal = self.pick(*OUTCOMES, own=False)
        return Damage(run, f'UPDATE portage.item_rows SET part = part + 1 WHERE run_id = {run} AND ordinal = {ordinal}', 'balance',
                      f'item {ordinal}: is of another part')

    def k_revision_doubled(self):
        run, ordinal = self.pick(*OUTCOMES, own=False)
        return Damage(run, f'INSERT INTO portage.item_rows SELECT run_id, ordinal, 1, part, line, byte_offset, byte_length, status, '
                      f'legacy_id, target_key FROM portage.item_rows WHERE run_id = {run} AND ordinal = {ordinal}', 'balance',
                      f'item {ordinal}: has a revision of no batch')

    def k_revision_taken_back(self):
        run, ordinal = self.pick('inserted', 'updated', own=False)
        return Damage(run, f"INSERT INTO portage.item_rows SELECT run_id, ordinal, 1, part, line, byte_offset, byte_length, 'rolled_back', "
                      f'legacy_id, target_key FROM portage.item_rows WHERE run_id = {run} AND ordinal = {ordinal}', 'balance',
                      'rolled_back: the batches say 0, the items 1')

    # batches, parts, counters

    def k_batch_counts(self):
        run, ordinal = self.pick(*OUTCOMES, own=False)
        batch, first, last = self.world.batch_of(run, ordinal)
        status = self.world.value('SELECT status FROM portage.item_rows WHERE run_id = %s AND ordinal = %s', run, ordinal)
        other = self.random.choice([one for one in OUTCOMES if one != status])
        return Damage(run, f'UPDATE portage.migration_batches SET {status} = {status} - 1, {other} = {other} + 1 WHERE run_id = {run} '
                      f'AND id = {batch}', 'balance', f'batch {batch} (items {first} to {last}), {status}: ')

    def k_batch_removed(self):
        run, ordinal = self.pick(*OUTCOMES, own=False)
        batch, first, last = self.world.batch_of(run, ordinal)
        return Damage(run, f'DELETE FROM portage.migration_batches WHERE run_id = {run} AND id = {batch}', 'item_count',
                      f'items {first} to {last}: in no batch', f'item {first}: in no batch')

    def k_batch_moved(self):
        run, ordinal = self.pick(*OUTCOMES, own=False)
        batch, first, last = self.world.batch_of(run, ordinal)
        return Damage(run, f'UPDATE portage.migration_batches SET first_ordinal = first_ordinal + 1, last_ordinal = last_ordinal + 1 '
                      f'WHERE run_id = {run} AND id = {batch}', 'item_count', f'item {first}: in no batch')

    def k_counters(self):
        run = self.random.choice((self.world.first, self.world.second))
        one, other = self.random.sample(OUTCOMES, 2)
        return Damage(run, f'UPDATE portage.migration_runs SET {one} = {one} + 1, {other} = {other} - 1 WHERE id = {run}', 'balance',
                      f'{one}: the run says ')

    def k_cursor(self):
        part = self.random.randint(1, 2)
        return Damage(self.world.first, f'UPDATE portage.migration_ranges SET next_ordinal = next_ordinal + 1 WHERE run_id = '
                      f'{self.world.first} AND part = {part}', 'item_count', f'part {part}: read from ')

    def k_part_removed(self):
        part = self.random.randint(1, 2)
        return Damage(self.world.first, f'DELETE FROM portage.migration_parts WHERE run_id = {self.world.first} AND part = {part}',
                      'item_count', f'part {part}: is gone')

    # payload

    def chunk(self):
        part, number = self.random.choice(((1, 1), (1, 2), (1, 3), (2, 1)))
        return part, number, f'WHERE run_id = {self.world.first} AND part = {part} AND chunk_no = {number}'

    def k_chunk_damaged(self):
        part, number, where = self.chunk()
        byte = self.random.randint(0, 300)
        return Damage(self.world.first, f'UPDATE portage.migration_payloads SET content = set_byte(content, {byte}, '
                      f'get_byte(content, {byte}) # 1) {where}', 'payload', f'part {part}, chunk {number}')

    def k_chunk_removed(self):
        part, number, where = self.chunk()
        return Damage(self.world.first, f'DELETE FROM portage.migration_payloads {where}', 'payload', f'part {part}')

    def k_chunk_replaced(self):
        part, _, where = self.chunk()
        return Damage(self.world.first, "UPDATE portage.migration_payloads SET content = convert_to(replace(convert_from(content, 'UTF8'), "
                      f"'note', 'mote'), 'UTF8') {where}; UPDATE portage.migration_payloads SET sha256 = sha256(content) {where}", 'source',
                      f'part {part}: its bytes are not those that were read')

    # before-images

    def undo(self, change):
        run, ordinal = self.pick('updated')
        return run, ordinal, f'{change} WHERE run_id = {run} AND ordinal = {ordinal}'

    def k_undo_removed(self):
        run, ordinal, sql = self.undo('DELETE FROM portage.migration_undo')
        return Damage(run, sql, 'undo', f'item {ordinal}: updated key {self.world.key(run, ordinal)}, no before-image')

    def k_undo_lost(self):
        run, ordinal, sql = self.undo('UPDATE portage.migration_undo SET columns = NULL, before = NULL')
        return Damage(run, sql, 'undo', f'item {ordinal}: updated key {self.world.key(run, ordinal)}, an empty before-image')

    def k_undo_value(self):
        run, ordinal, sql = self.undo("UPDATE portage.migration_undo SET before[1] = coalesce(before[1], '0') || '7'")
        return Damage(run, sql, 'undo', f'item {ordinal}: the before-image of key {self.world.key(run, ordinal)} does not fit')

    def k_undo_unreadable(self):
        run, ordinal, sql = self.undo("UPDATE portage.migration_undo SET before[1] = 'no number'")
        return Damage(run, sql, 'undo', f'item {ordinal}: the before-image of key {self.world.key(run, ordinal)} cannot be read')

    def k_undo_hash(self):
        run, ordinal, sql = self.undo('UPDATE portage.migration_undo SET before_hash = before_hash # 1')
        return Damage(run, sql, 'undo', f'item {ordinal}: the before-image of key ')

    def k_undo_of_the_mapping(self):
        """The second run no longer says that it took the mapping over: the first one's item is without a reason."""
        ordinal = self.random.randint(1, 10)
        return Damage(self.world.first, f'UPDATE portage.migration_undo SET mapping_run_id = NULL WHERE run_id = {self.world.second} '
                      f'AND ordinal = {ordinal}', 'mapping', f'item {ordinal}: its mapping says item {ordinal} of run {self.world.second}')
