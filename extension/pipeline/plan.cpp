// See plan.hpp. What a plan tells about itself; compile.cpp makes it, prepare.cpp runs it.
#include "pipeline/plan_body.hpp"
#include "pipeline/legacy_id.hpp"

extern "C" {
#include "utils/builtins.h"
#include "utils/fmgroids.h"
}

namespace portage {

Plan::Plan() : body_(std::make_unique<Body>()) {}
Plan::~Plan() = default;

const StoredPipeline& Plan::stored() const { return body_->pipeline; }
const Definition& Plan::definition() const { return body_->definition; }
const std::string& Plan::name_now(const std::string& name) const {
  auto renamed = body_->renamed.find(name);
  return renamed == body_->renamed.end() ? name : renamed->second;
}
const Target& Plan::target() const { return body_->target; }

bool Plan::target_is_unchanged() { return unchanged(body_->target); }
Oid Plan::owner() const { return body_->pipeline.owner; }
const std::vector<int>& Plan::mapped() const { return body_->mapped; }
const std::vector<int>& Plan::key() const { return body_->key; }
const std::vector<int>& Plan::match() const { return body_->match; }
const std::vector<Reference>& Plan::references() const { return body_->references; }
bool Plan::refers_to_itself() const {
  return std::any_of(body_->references.begin(), body_->references.end(),
                     [&](const Reference& one) { return one.pipeline_id == body_->pipeline.id; });
}
const Plan::Surroundings& Plan::surroundings() const { return body_->surroundings; }
const std::vector<int>& Plan::early() const { return body_->early; }

void Plan::pin_settings(bridge::Settings& settings) const { body_->pin_settings(settings, false); }

formats::Options Plan::reader_options() const {
  const Definition& definition = body_->definition;
  formats::Options options;
  options.items = definition.items;
  options.paths = body_->paths;
  options.want_item = body_->uses_item;
  options.delimiter = definition.csv.delimiter;
  options.quote = definition.csv.quote;
  options.escape = definition.csv.escape;
  options.header = definition.csv.header;
  options.columns = definition.csv.columns;
  options.null_string = definition.csv.null_string;
  options.utf8 = body_->encoding == PG_UTF8;
  return options;
}

uint64_t Plan::source_hash(const Datum* values, const bool* nulls) const {
  const RowHasher* hasher = &body_->source_hasher;
  return bridge::guarded([=] { return (*hasher)(values, nulls); });
}

namespace {

/// The text of a key's column, as its output function gives it.
const char* part_raw(FmgrInfo* output, Datum value, char* digits) {
  switch (output->fn_oid) {
    case F_INT4OUT:
      pg_ltoa(DatumGetInt32(value), digits);
      return digits;
    case F_INT8OUT:
      pg_lltoa(DatumGetInt64(value), digits);
      return digits;
    default:
      return OutputFunctionCall(output, value);
  }
}

/// Behind what `out` holds; `parts` is scratch.
void append_key_raw(const Plan::Body* body, StringInfo out, StringInfo parts, const Datum* values,
                    const bool* nulls) {
  char digits[MAXINT8LEN + 1];
  size_t count = body->key.size();
  resetStringInfo(parts);
  for (size_t i = 0; i < count; i++) {
    int index = body->key[i] - 1;
    // A key's columns are NOT NULL; where nothing enforces that (views), a null shows as an empty text.
    const char* part =
        nulls[index] ? "" : part_raw(const_cast<FmgrInfo*>(&body->key_output[i]), values[index], digits);
    if (count == 1)
      appendStringInfoString(out, part);
    else
      append_json_text_raw(parts, part, strlen(part));
  }
  if (count == 1) return;
  appendBinaryStringInfo(out, parts->data, parts->len);
  appendStringInfoChar(out, ']');
}

}  // namespace

std::string Plan::key_text(const Datum* values, const bool* nulls) const {
  const Body* body = body_.get();
  body_->key_memory.reset();
  bridge::InMemory in(body_->key_memory.get());
  StringInfoData text, parts;
  StringInfo out = &text, scratch = &parts;
  bridge::guarded([=] {
    initStringInfo(out);
    initStringInfo(scratch);
    append_key_raw(body, out, scratch, values, nulls);
  });
  return std::string(text.data, static_cast<size_t>(text.len));
}

void Plan::name_keys(Batch& batch, const std::vector<Item*>& items) const {
  constexpr size_t together = 256;
  const Body* body = body_.get();
  bridge::InMemory in(body_->key_memory.get());
  size_t ends[together];
  StringInfoData text, parts;
  StringInfo out = &text, scratch = &parts;
  for (size_t from = 0; from < items.size(); from += together) {
    body_->key_memory.reset();
    Item* const* first = items.data() + from;
    size_t count = std::min(together, items.size() - from), *to = ends;
    bridge::guarded([=] {
      initStringInfo(out);
      initStringInfo(scratch);
      for (size_t i = 0; i < count; i++) {
        append_key_raw(body, out, scratch, first[i]->stored, first[i]->stored_nulls);
        to[i] = static_cast<size_t>(out->len);
      }
    });
    std::string_view all = batch.arena.copy({text.data, static_cast<size_t>(text.len)});
    for (size_t i = 0, start = 0; i < count; start = ends[i++])
      first[i]->target_key = all.substr(start, ends[i] - start);
  }
}

void Plan::Body::pin_settings(bridge::Settings& settings, bool search_path) const {
  pin_value_settings(settings, pipeline.timezone, pipeline.settings, search_path);
  if (search_path) settings.set_path_of_another(pipeline.search_path);
}

AsPipelineOwner::AsPipelineOwner(const Plan::Body& body) {
  if (body.is_foreign_owner())
    user_.emplace(body.pipeline.owner, SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
  body.pin_settings(settings_.emplace(), true);
}

}  // namespace portage
