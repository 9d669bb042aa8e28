// See plan_cache.hpp.
#include "pipeline/plan_cache.hpp"
#include "pipeline/plan_body.hpp"

extern "C" {
#include "utils/inval.h"
#include "utils/syscache.h"
}

namespace portage {
namespace {

constexpr size_t most_bytes = 4 << 20;  // of a plan: functions may keep much of what they have seen

// No destructors: what is kept ends with the process.
constinit Plan* kept[8] = {};  // the one used last is the first
constinit uint64_t changes = 0;
constinit bool watching = false;

void note_relation(Datum, Oid) { changes++; }
void note_object(Datum, int, uint32) { changes++; }

/// Of objects, and of rights to them, that definitions and what these use can name. Tables, with their
/// columns, defaults, constraints, triggers, policies and rights, are told of as relations.
void watch() {
  if (watching) return;
  bridge::guarded([] {
    for (int catalog : {PROCOID, TYPEOID, OPEROID, CONSTROID, ENUMOID, CASTSOURCETARGET, COLLOID, CLAOID,
                        AMOPOPID, CONVOID, LANGOID, NAMESPACEOID, AUTHOID, AUTHMEMROLEMEM})
      CacheRegisterSyscacheCallback(catalog, note_object, 0);
    CacheRegisterRelcacheCallback(note_relation, 0);
  });
  watching = true;
}

/// 'now' and the like are moments of the compilation. Any mention of such a word counts, but for calls.
bool names_a_moment(std::string_view definition) {
  auto in_word = [&](size_t i) {
    return i < definition.size() &&
           (isalnum(static_cast<unsigned char>(definition[i])) || definition[i] == '_');
  };
  for (std::string_view word : {"now", "today", "tomorrow", "yesterday"})
    for (size_t i = 0; i + word.size() <= definition.size(); i++)
      if (pg_strncasecmp(definition.data() + i, word.data(), word.size()) == 0 && !in_word(i + word.size()) &&
          (i == 0 || !in_word(i - 1)) && !definition.substr(i + word.size()).starts_with('('))
        return true;
  return false;
}

void forget() {
  for (Plan*& plan : kept) delete std::exchange(plan, nullptr);
}

}  // namespace

uint64_t catalog_changes() {
  watch();
  return changes;
}

std::unique_ptr<Plan> take_plan(const StoredPipeline& pipeline) {
  bridge::guarded([] { AcceptInvalidationMessages(); });
  for (Plan*& plan : kept) {
    if (!plan) continue;
    const Plan::Body& body = plan->body();
    if (body.changes_before != changes) {
      forget();
      break;
    }
    if (body.role == GetUserId() && body.pipeline == pipeline)
      return std::unique_ptr<Plan>(std::exchange(plan, nullptr));
  }
  return Plan::compile(pipeline);
}

void keep_plan(std::unique_ptr<Plan> plan) {
  const Plan::Body& body = plan->body();
  MemoryContext memory = body.memory.get();
  if (body.changes_before != changes || names_a_moment(body.pipeline.definition) ||
      MemoryContextMemAllocated(memory, true) > most_bytes)
    return;
  Plan* next = plan.release();
  for (Plan*& place : kept) {
    std::swap(place, next);
    if (!next) return;
  }
  delete next;
}

}  // namespace portage
