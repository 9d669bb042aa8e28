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

bool names_a_moment(const Plan::Body& body) {
  auto any = [](const auto& all) {
    return std::any_of(all.begin(), all.end(), [](const auto& one) { return one.expression.names_a_moment; });
  };
  return any(body.columns) || any(body.rules) || any(body.merges) || body.legacy_expression.names_a_moment ||
         body.where.names_a_moment || body.newer.names_a_moment;
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
  if (body.changes_before != changes || names_a_moment(body) ||
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
