// Plan::compile: a definition meets its target. Everything is resolved, type-checked and compiled here, so
// that a run can fail only on data; each fault names its place in the definition.
#include "pipeline/merge.hpp"
#include "pipeline/plan_cache.hpp"
#include "pipeline/row_shape.hpp"
#include "pipeline/target_reader.hpp"

#include "bridge/codes.hpp"
#include "bridge/spi.hpp"

extern "C" {
#include "nodes/execnodes.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
}

namespace portage {
namespace {

using bridge::Error;
using bridge::format;
using bridge::guarded;

Error fault(const std::string& place, std::string message, std::string hint = "") {
  return Error(codes::invalid_definition, std::move(message)).detail("at " + place).hint(std::move(hint));
}

Definition parse(const std::string& text) {
  try {
    return parse_definition(text);
  } catch (const DefinitionFault& e) {
    Error error(e.unsupported ? ERRCODE_FEATURE_NOT_SUPPORTED : codes::invalid_definition, e.message);
    if (!e.path.empty()) error.detail("at " + e.path);
    if (!e.hint.empty()) error.hint(e.hint);
    throw error;
  }
}

/// One pipeline's compilation; the members are what the steps share.
class Compiler {
 public:
  Compiler(Plan::Body& body) : body_(body), definition_(body.definition), target_(body.target) {}

  void compile() {
    bridge::InMemory in(body_.memory.get());
    choose_encoding();
    resolve_columns();
    resolve_names();
    make_slots();
    compile_as_owner();
    compile_as_runner();
  }

 private:
  const TargetColumn& column_named(const std::string& name, const std::string& place) {
    if (auto* column = target_.column(name)) return *column;
    std::string hint = nearest_hint(name, target_.column_names());
    throw fault(
        place, format("column \"%s\" of relation \"%s\" does not exist", name.c_str(), target_.name.c_str()),
        hint.empty() ? "On the left of \"columns\" stand the table's columns, on the right the input's."
                     : hint);
  }

  bool is_mapped(int attnum) const {
    return std::find(body_.mapped.begin(), body_.mapped.end(), attnum) != body_.mapped.end();
  }

  void choose_encoding() {
    if (definition_.format == Format::rows) body_.encoding = body_.item_encoding = GetDatabaseEncoding();
    if (definition_.format != Format::csv) return;
    const std::string& name = definition_.csv.encoding;
    body_.encoding = pg_char_to_encoding(name.c_str());
    if (!PG_VALID_ENCODING(body_.encoding))
      throw fault("csv.encoding", format("unknown encoding \"%s\"", name.c_str()),
                  "It is a name of the server's, such as \"LATIN1\" or \"WIN1252\".");
    body_.item_encoding = body_.encoding;
    if (!PG_VALID_BE_ENCODING(body_.encoding))
      throw Error(ERRCODE_FEATURE_NOT_SUPPORTED, format("encoding \"%s\" is not supported", name.c_str()))
          .detail("at csv.encoding")
          .hint("Supported are encodings whose bytes below 128 are always ASCII characters.");
  }

  int field_of(const formats::Path& path) {
    for (size_t i = 0; i < body_.paths.size(); i++)
      if (body_.paths[i].steps == path.steps) return static_cast<int>(i);
    body_.paths.push_back(path);
    return static_cast<int>(body_.paths.size()) - 1;
  }

  Source source_of(const ValueSource& from) {
    Source source{};
    source.kind = from.kind;
    if (from.kind == ValueSource::Kind::variable) {
      Variable variable = from.variable;
      body_.uses_mtime = body_.uses_mtime || variable == Variable::mtime;
      body_.surroundings.place |= variable == Variable::name || variable == Variable::path;
      body_.surroundings.other |= variable == Variable::ordinal || variable == Variable::mtime;
    }
    source.variable = from.variable;
    if (from.kind == ValueSource::Kind::path) {
      if (definition_.format == Format::csv && (from.path.steps.size() != 1 || from.path.steps[0].is_index))
        throw fault(from.place, format("path \"%s\" names no column of a CSV", from.path.text.c_str()),
                    "A column's name with special characters is written in double quotes.");
      source.field = field_of(from.path);
    }
    source.constant = {from.constant.kind, from.constant.text};
    source.has_fallback = from.fallback.has_value();
    if (from.fallback) source.fallback = {from.fallback->kind, from.fallback->text};
    return source;
  }

  void resolve_columns() {
    for (const ColumnMapping& mapping : definition_.columns) {
      const TargetColumn& column = column_named(mapping.column, "columns." + mapping.column);
      if (column.generated)
        throw fault(mapping.source.place, format("column \"%s\" is a generated column", column.name.c_str()),
                    "Its value is computed by the table; leave it out.");
      MappedColumn compiled{};
      compiled.attnum = column.attnum;
      compiled.name = column.name.c_str();
      compiled.source = source_of(mapping.source);
      body_.columns.push_back(compiled);
      places_[column.attnum] = &mapping.source;
    }
    std::sort(body_.columns.begin(), body_.columns.end(),
              [](const MappedColumn& a, const MappedColumn& b) { return a.attnum < b.attnum; });
    // Judged early only where nothing stands between us and the table that could still mend the row.
    bool judge = (target_.relkind == RELKIND_RELATION || target_.relkind == RELKIND_PARTITIONED_TABLE) &&
                 !target_.triggers.insert_before_row && !target_.has_rules;
    for (size_t i = 0; i < body_.columns.size(); i++) {
      MappedColumn& column = body_.columns[i];
      column.bit = uint64_t{1} << (i % 64);
      column.check_not_null = judge && target_.column(column.attnum).not_null;
      body_.mapped.push_back(column.attnum);
      const ValueSource& source = *places_[column.attnum];
      (source.kind == ValueSource::Kind::sql ? body_.expressions
       : !source.references.empty()          ? body_.referring
                                             : body_.conversions)
          .push_back(&column);
      if (source.references.empty()) continue;
      auto referred = body_.pipeline.refers_to.find(source.references);
      body_.references.push_back({column.attnum, source.references,
                                  referred == body_.pipeline.refers_to.end() ? 0 : referred->second,
                                  "columns." + std::string(column.name) + ".references"});
    }
    judge_early_ = judge;
    if (judge)
      for (const TargetColumn& column : target_.columns)
        if (!column.dropped && column.not_null && !column.has_default && !column.generated &&
            !is_mapped(column.attnum))
          throw fault(
              "columns",
              format("column \"%s\" is not mapped, but is NOT NULL and has no default", column.name.c_str()),
              "Map it to a path, or to a constant: {\"value\": ...}.");
  }

  void resolve_names() {
    body_.key = target_.key;
    for (size_t i = 0; i < definition_.match.size(); i++) {
      std::string place = "match[" + std::to_string(i) + "]";
      const TargetColumn& column = column_named(definition_.match[i], place);
      if (!is_mapped(column.attnum))
        throw fault(place, format("match column \"%s\" is not mapped", column.name.c_str()),
                    "Add it to \"columns\".");
      body_.match.push_back(column.attnum);
    }
    if (definition_.match.empty() &&
        std::all_of(body_.key.begin(), body_.key.end(), [&](int attnum) { return is_mapped(attnum); }))
      body_.match = body_.key;
    for (const ValueSource& source : definition_.legacy_id)
      if (source.kind != ValueSource::Kind::sql) body_.legacy_id.push_back(source_of(source));
  }

  void make_slots() {
    TupleDesc shape = target_.shape;
    Plan::Body* body = &body_;
    guarded([=] {
      static const struct {
        const char* name;
        Oid type;
      } variables[item_variables] = {{"item", JSONBOID},       {"scope", TEXTOID},   {"name", TEXTOID},
                                     {"path", TEXTOID},        {"ordinal", INT8OID}, {"line", INT8OID},
                                     {"mtime", TIMESTAMPTZOID}};
      TupleDesc items = CreateTemplateTupleDesc(item_variables);
      for (int i = 0; i < item_variables; i++)
        TupleDescInitEntry(items, static_cast<AttrNumber>(i + 1), variables[i].name, variables[i].type, -1,
                           0);
      for (int i = 1; i < 4; i++)
        TupleDescInitEntryCollation(items, static_cast<AttrNumber>(i + 1), DEFAULT_COLLATION_OID);
      body->item_slot = MakeSingleTupleTableSlot(items, &TTSOpsVirtual);
      body->row_slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(shape), &TTSOpsVirtual);
      body->executor = CreateStandaloneExprContext();
      initStringInfo(&body->convert.scratch);
    });
    body_.convert.encoding = body_.encoding;
    body_.convert.server_encoding = GetDatabaseEncoding();
    body_.convert.is_json = definition_.format == Format::json || definition_.format == Format::ndjson;
  }

  /// The target's row with the names that its columns had when the definition was written.
  TupleDesc shape_then() const {
    if (body_.renamed.empty()) return target_.shape;
    TupleDesc shape = target_.shape;
    TupleDesc then = guarded([=] { return CreateTupleDescCopy(shape); });
    for (const auto& [name, now] : body_.renamed)
      if (const TargetColumn* column = target_.column(now))
        namestrcpy(&TupleDescAttr(then, column->attnum - 1)->attname, name.c_str());
    return then;
  }

  // What the definition's author wrote, in the name of the pipeline's owner.

  void compile_as_owner() {
    AsPipelineOwner owner(body_);
    bridge::Settings same_everywhere;  // what a session may read otherwise
    same_everywhere.set("standard_conforming_strings", "on").set("transform_null_equals", "off");
    Variables item{body_.item_slot->tts_tupleDescriptor, {}};
    Variables row{shape_then(), {{target_.name.c_str(), 0, target_.natts}}};
    std::vector<int> used;
    for (MappedColumn* column : body_.expressions) {
      const TargetColumn& target = target_.column(column->attnum);
      const ValueSource& source = *places_[column->attnum];
      column->expression = compile_expression(
          source.sql, item, {target.type, target.typmod, false, "column \"" + target.name + "\""},
          source.place, used);
    }
    const ValueSource& id = definition_.legacy_id.front();
    if (id.kind == ValueSource::Kind::sql)
      body_.legacy_expression =
          compile_expression(id.sql, item, {TEXTOID, -1, true, "\"legacy_id\""}, id.place, used);
    if (!definition_.where.empty())
      body_.where =
          compile_expression(definition_.where, item, {BOOLOID, -1, false, "\"where\"", true}, "where", used);
    auto uses = [&](ItemVariable v) { return std::find(used.begin(), used.end(), v) != used.end(); };
    body_.uses_item = uses(item_json);
    body_.surroundings.place |= uses(item_name) || uses(item_path);
    body_.surroundings.other |= uses(item_ordinal) || uses(item_mtime);
    for (const MappedColumn* column : body_.expressions)
      body_.surroundings.other |= !column->expression.immutable;
    for (const Expression* expression : {&body_.legacy_expression, &body_.where})
      body_.surroundings.other |= expression->state && !expression->immutable;
    for (const Rule& rule : definition_.rules) {
      std::vector<int> columns;
      Expression expression = compile_expression(
          rule.sql, row, {BOOLOID, -1, false, "rule \"" + rule.name + "\"", true}, rule.place, columns);
      for (int attnum : columns) note_early(attnum, rule.place);
      body_.rules.push_back({&rule, expression, bits_of(columns)});
      body_.surroundings.other |= !expression.immutable;
    }
    compile_merging(body_);
  }

  void note_early(int attnum, const std::string& place) {
    if (is_mapped(attnum) || std::find(body_.early.begin(), body_.early.end(), attnum) != body_.early.end())
      return;
    const TargetColumn& column = target_.column(attnum);
    if (column.generated)
      throw fault(place, format("generated column \"%s\" cannot be used in a rule", column.name.c_str()),
                  "Write its expression instead: it is computed after the rules.");
    body_.early.push_back(attnum);
  }

  uint64_t bits_of(const std::vector<int>& attnums) const {
    uint64_t bits = 0;
    for (const MappedColumn& column : body_.columns)
      if (std::find(attnums.begin(), attnums.end(), column.attnum) != attnums.end()) bits |= column.bit;
    return bits;
  }

  // What SQL itself would do for whoever inserts.

  void compile_as_runner() {
    bridge::Settings settings;
    body_.pin_settings(settings, false);
    MemoryContext context = body_.memory.get();
    for (MappedColumn* column : body_.referring) {  // what comes are keys as text
      const TargetColumn& target = target_.column(column->attnum);
      Oid type = target.type;
      int32 typmod = target.typmod;
      column->converter = guarded([=] { return make_converter_raw(type, typmod, column->name, context); });
    }
    for (MappedColumn* column : body_.conversions) {
      const TargetColumn& target = target_.column(column->attnum);
      Oid type = target.type;
      int32 typmod = target.typmod;
      column->converter = guarded([=] { return make_converter_raw(type, typmod, column->name, context); });
      const ValueSource& source = *places_[column->attnum];
      if (definition_.datestyle.empty() && source.kind == ValueSource::Kind::path)
        column->converter.watch_order = guarded([=] { return is_dated_raw(type); });
      if (source.kind == ValueSource::Kind::constant)
        try_constant(column, column->source.constant, source.place);
      if (source.fallback)
        try_constant(column, column->source.fallback, "columns." + target.name + ".default");
    }
    std::sort(body_.early.begin(), body_.early.end());
    compile_defaults();
    compile_checks();
    body_.source_hasher = RowHasher::make(target_.shape, body_.mapped, context);
    for (int attnum : body_.key) {
      Oid type = target_.column(attnum).type;
      body_.key_output.push_back(guarded([=] {
        FmgrInfo output;
        Oid function;
        bool varlena;
        getTypeOutputInfo(type, &function, &varlena);
        fmgr_info_cxt(function, &output, context);
        return output;
      }));
    }
  }

  /// A constant that does not fit is a fault of the definition, not of every item.
  void try_constant(MappedColumn* column, const formats::Field& value, const std::string& place) {
    ConvertContext* context = &body_.convert;
    formats::Field field = value;
    try {
      bridge::Memory scratch("portage constant");
      bridge::InMemory in(scratch.get());
      guarded([=] {
        bool null;
        (void)convert_raw(&column->converter, context, field.kind, field.text.data(), field.text.size(),
                          false, &null);
      });
    } catch (const Error& error) {
      throw at_place(error, place);
    }
  }

  void compile_defaults() {
    for (const TargetColumn& column : target_.columns) {
      auto is_in = [&](const std::vector<int>& attnums) {
        return std::find(attnums.begin(), attnums.end(), column.attnum) != attnums.end();
      };
      bool is_early = is_in(body_.early);
      if (column.dropped || column.generated || !column.has_default || is_mapped(column.attnum)) continue;
      if (!is_early && !is_in(body_.key)) continue;  // these are the writer's affair
      Oid table = target_.oid;
      int attnum = column.attnum;
      Node* tree = guarded([=] {
        Relation relation = table_open(table, AccessShareLock);
        Node* expression = build_column_default(relation, attnum);
        table_close(relation, NoLock);
        return expression;
      });
      if (!tree) continue;
      ColumnDefault compiled{attnum, column.name.c_str(), compile_tree(tree)};
      (is_early ? body_.early_defaults : body_.key_defaults).push_back(compiled);
    }
  }

  void compile_checks() {
    if (!judge_early_) return;
    for (const TargetCheck& check : target_.checks) {
      bool known = std::all_of(check.attnums.begin(), check.attnums.end(), [&](int attnum) {
        return attnum > 0 && (is_mapped(attnum) ||
                              std::find(body_.early.begin(), body_.early.end(), attnum) != body_.early.end());
      });
      if (!known || check.attnums.empty()) continue;
      const char* text = check.expression.c_str();
      Node* tree = guarded([=] { return static_cast<Node*>(stringToNode(text)); });
      body_.checks.push_back({&check, compile_tree(tree), bits_of(check.attnums)});
    }
  }

  Plan::Body& body_;
  const Definition& definition_;
  Target& target_;
  bool judge_early_ = false;
  std::map<int, const ValueSource*> places_;
};

std::vector<std::string> key_proposal(const Definition& definition) {
  if (!definition.match.empty()) return definition.match;
  // The columns that the legacy id comes from identify an item, so they might identify its row.
  std::vector<std::string> names;
  for (const ValueSource& id : definition.legacy_id)
    for (const ColumnMapping& mapping : definition.columns)
      if (id.kind == ValueSource::Kind::path && mapping.source.kind == ValueSource::Kind::path &&
          mapping.source.path.steps == id.path.steps)
        names.push_back(mapping.column);
  return names.size() == definition.legacy_id.size() ? names : std::vector<std::string>();
}

void check_timezone(const std::string& timezone) {
  try {
    bridge::Settings settings;
    settings.set("timezone", timezone);
  } catch (const Error& error) {
    throw fault("timezone", format("unknown time zone \"%s\"", timezone.c_str()));
  }
}

/// A definition names columns as they were called: those that have another name since the run began.
void follow_renames(Plan::Body& body) {
  const StoredPipeline& pipeline = body.pipeline;
  if (pipeline.shape_then.empty()) return;
  Target target = read_target(pipeline.target);
  RowShape then(target, pipeline.shape_then, pipeline.names_then, target.column_names());
  for (const std::string& name : pipeline.names_then)
    if (const TargetColumn* now = then.column_now(target, name); now && now->name != name)
      body.renamed[name] = now->name;
  if (body.renamed.empty()) return;
  auto follow = [&](std::string& name) {
    auto renamed = body.renamed.find(name);
    if (renamed != body.renamed.end()) name = renamed->second;
  };
  Definition& definition = body.definition;
  for (ColumnMapping& mapping : definition.columns) follow(mapping.column);
  for (std::string& name : definition.match) follow(name);
  for (std::string& name : definition.key) follow(name);
  for (MergeRule& rule : definition.merge) follow(rule.column);
  follow(definition.newest_by);
}

}  // namespace

std::unique_ptr<Plan> Plan::compile(const StoredPipeline& pipeline) {
  std::unique_ptr<Plan> plan(new Plan);
  Body& body = *plan->body_;
  body.role = GetUserId();
  body.changes_before = catalog_changes();
  body.pipeline = pipeline;
  body.definition = parse(pipeline.definition);
  if (!OidIsValid(pipeline.target))
    throw Error(codes::unusable_target, format("table \"%s.%s\" does not exist",
                                               pipeline.target_schema.c_str(), pipeline.target_name.c_str()));
  if (!OidIsValid(pipeline.owner))
    throw Error(ERRCODE_UNDEFINED_OBJECT,
                format("the owner of pipeline \"%s\" does not exist", pipeline.name.c_str()));
  check_timezone(pipeline.timezone);
  follow_renames(body);
  for (size_t i = 0; i < body.definition.key.size(); i++) {
    // Before the target is described, so that the fault has its place in the definition.
    Target any = read_target(pipeline.target);
    if (!any.column(body.definition.key[i]))
      throw fault("key[" + std::to_string(i) + "]",
                  format("column \"%s\" of relation \"%s\" does not exist", body.definition.key[i].c_str(),
                         any.name.c_str()),
                  nearest_hint(body.definition.key[i], any.column_names()));
  }
  body.target = describe_target(pipeline.target, body.definition.key, key_proposal(body.definition),
                                pipeline.absent_key);
  Compiler(body).compile();
  return plan;
}

}  // namespace portage
