// See plan.hpp. What a plan tells about itself; compile.cpp makes it, prepare.cpp runs it.
#include "pipeline/plan_body.hpp"
#include "pipeline/legacy_id.hpp"

namespace portage {

Plan::Plan() : body_(std::make_unique<Body>()) {}
Plan::~Plan() = default;

const Definition& Plan::definition() const { return body_->definition; }
const Target& Plan::target() const { return body_->target; }
Oid Plan::owner() const { return body_->pipeline.owner; }
const std::vector<int>& Plan::mapped() const { return body_->mapped; }
const std::vector<int>& Plan::key() const { return body_->key; }
const std::vector<int>& Plan::match() const { return body_->match; }
const std::vector<Reference>& Plan::references() const { return body_->references; }
const Plan::Surroundings& Plan::surroundings() const { return body_->surroundings; }
const std::vector<int>& Plan::early() const { return body_->early; }

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

std::string Plan::key_text(const Datum* values, const bool* nulls) const {
  const Body* body = body_.get();
  int first = body->key.front() - 1;
  if (body->key.size() == 1 && !nulls[first]) {  // numbers need neither their output function nor its memory
    Oid type = body->target.columns[static_cast<size_t>(first)].type;
    if (type == INT8OID) return std::to_string(DatumGetInt64(values[first]));
    if (type == INT4OID) return std::to_string(DatumGetInt32(values[first]));
  }
  body_->key_memory.reset();
  bridge::InMemory in(body_->key_memory.get());
  StringInfoData text;
  StringInfo out = &text;
  bridge::guarded([=] {
    initStringInfo(out);
    size_t count = body->key.size();
    for (size_t i = 0; i < count; i++) {
      int index = body->key[i] - 1;
      // A key's columns are NOT NULL; where nothing enforces that (views), a null shows as an empty text.
      char* part = nulls[index]
                       ? pstrdup("")
                       : OutputFunctionCall(const_cast<FmgrInfo*>(&body->key_output[i]), values[index]);
      if (count == 1)
        appendStringInfoString(out, part);
      else
        append_json_text_raw(out, part, strlen(part));
    }
    if (count > 1) appendStringInfoChar(out, ']');
  });
  return std::string(text.data, static_cast<size_t>(text.len));
}

void Plan::Body::pin_settings(bridge::Settings& settings, bool search_path) const {
  settings.set("timezone", pipeline.timezone)
      .set("datestyle", "ISO, MDY")
      .set("intervalstyle", "postgres")
      .set("extra_float_digits", "1");
  if (search_path) settings.set("search_path", pipeline.search_path);
}

AsPipelineOwner::AsPipelineOwner(const Plan::Body& body) {
  if (body.is_foreign_owner())
    user_.emplace(body.pipeline.owner, SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
  body.pin_settings(settings_.emplace(), true);
}

}  // namespace portage
