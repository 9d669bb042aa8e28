// What a batch leaves for its undoing: the part of the loader that gives written items their outcome and
// keeps the before-images of what they overwrote. See loader.hpp.
#include "load/loader.hpp"

extern "C" {
#include "utils/datum.h"
}

namespace portage::load {

using bridge::guarded;

/// After phase B: outcomes of what was written, and the before-images of what was overwritten.
void Loader::keep_undo(Batch& batch) {
  const Target& target = plan_.target();
  bridge::InMemory in(batch.memory.get());
  if (keeps_images()) keep_images(batch);
  for (Work& work : work_) {
    Item& item = *work.item;
    if (item.outcome != Outcome::pending) {
      if (item.outcome == Outcome::skipped) item.origin = 0;
      continue;
    }
    item.outcome = work.is_update ? Outcome::updated : Outcome::inserted;
    if (!work.is_update && !work.mapping.found) continue;
    ledger::Undo undo{
        &item, work.is_update ? work.update.before.key : item.target_key, 0, 0, std::nullopt, work.mapping};
    if (work.is_update) {
      std::vector<std::string> names;
      std::vector<int> changed;
      for (const TargetColumn& column : target.columns) {
        if (column.dropped || column.generated) continue;
        int i = column.attnum - 1;
        const Row &before = work.update.before, &after = work.update.after;
        bool differs = before.nulls[i] != after.nulls[i];
        if (!differs && !before.nulls[i]) {
          Datum a = before.values[i], b = after.values[i];
          bool by_value = column.by_value;
          int length = column.length;
          differs = !guarded([=] { return datum_image_eq(a, b, by_value, length); });
        }
        if (!differs) continue;
        names.push_back(column.name);
        changed.push_back(i);
      }
      int count = static_cast<int>(changed.size());
      auto* texts = batch.arena.make_array<Datum>(changed.size() + 1);
      auto* nulls = batch.arena.make_array<bool>(changed.size() + 1);
      std::vector<int64_t> after_hashes;
      {
        bridge::PlainText plain;
        for (int j = 0; j < count; j++) {
          int i = changed[static_cast<size_t>(j)];
          const Row &before = work.update.before, &after = work.update.after;
          Oid type = target.columns[static_cast<size_t>(i)].type;
          nulls[j] = before.nulls[i];
          if (!nulls[j]) texts[j] = bridge::text_datum(bridge::output_text(type, before.values[i]));
          after_hashes.push_back(after.nulls[i]
                                     ? ledger::text_hash(std::nullopt)
                                     : ledger::text_hash(bridge::output_text(type, after.values[i])));
        }
      }
      undo.after_hashes = bridge::param_int8_array(after_hashes).value;
      undo.columns = bridge::param_text_array(names).value;
      undo.before = guarded([=] {
        int dims[1] = {count}, lower[1] = {1};
        return PointerGetDatum(
            construct_md_array(texts, nulls, 1, dims, lower, TEXTOID, -1, false, TYPALIGN_INT));
      });
      undo.before_hash = static_cast<int64_t>(work.update.before.row_hash);
    }
    undo_.push_back(undo);
  }
}

/// What the mappings of landed items remember of them.
void Loader::keep_images(Batch& batch) {
  bridge::PlainText plain;  // once for all
  for (Item& item : batch.items) {
    bool landed = item.outcome == Outcome::pending || item.outcome == Outcome::unchanged;
    if (!landed || !item.origin || !item.stored) continue;
    const Datum* came = item.came ? item.came : item.values;
    const bool* came_nulls = item.came ? item.came_nulls : item.nulls;
    item.image = make_image(plan_, item.stored, item.stored_nulls, came, came_nulls);
  }
}

}  // namespace portage::load
