// See opening.hpp.
#include "group/opening.hpp"

#include "bridge/codes.hpp"
#include "bridge/json.hpp"
#include "group/options.hpp"
#include "ledger/groups.hpp"
#include "ledger/pipelines.hpp"
#include "run/access.hpp"
#include "run/entry_points.hpp"

namespace portage::group {

using bridge::Error;

Selection select(const std::vector<std::string>& pipelines) {
  if (pipelines.empty()) throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "a group needs at least one pipeline");
  Selection selection;
  std::map<int64_t, std::string> names;
  for (const std::string& name : pipelines) {
    StoredPipeline pipeline = ledger::find_pipeline(name, ledger::Need::run);
    if (!names.emplace(pipeline.id, name).second)
      throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "pipeline \"" + name + "\" is listed twice");
    selection.definitions.push_back(parse_definition(pipeline.definition));
    selection.pipelines.push_back(std::move(pipeline));
    selection.sequence.push_back(selection.sequence.size());
  }
  for (size_t i = 0; i < pipelines.size(); i++) {
    // What the definition names, by the name that the caller has for it: its own could be another's.
    auto callers = [&](const std::string& name) {
      int64_t id = selection.pipelines[i].refers_to.at(name);
      auto listed = names.find(id);
      return listed != names.end() ? listed->second : ledger::name_of_pipeline(id, false).value_or(name);
    };
    Node node{pipelines[i], {}, {}};
    for (const std::string& first : selection.definitions[i].after) node.after.push_back(callers(first));
    for (const ColumnMapping& column : selection.definitions[i].columns)
      if (!column.source.references.empty()) node.references.push_back(callers(column.source.references));
    selection.nodes.push_back(std::move(node));
  }
  selection.order = order_of(selection.nodes);
  std::stable_sort(selection.sequence.begin(), selection.sequence.end(),
                   [&](size_t a, size_t b) { return selection.order.level[a] < selection.order.level[b]; });
  return selection;
}

std::string shown(const Order::Cycle& cycle) {
  std::string text;
  for (const std::string& name : cycle.names) text += (text.empty() ? "\"" : " -> \"") + name + "\"";
  return text;
}

namespace {

void refuse_cycles(const Order& order) {
  if (order.possible()) return;
  std::string cycles;
  for (const Order::Cycle& cycle : order.cycles)
    if (cycle.hard) cycles += (cycles.empty() ? "" : "\n") + shown(cycle);
  throw Error(codes::blocked, "the pipelines wait for each other")
      .detail(cycles)
      .hint("Take one of them out of the group, or out of the other's \"after\".");
}

int64_t open_member(const StoredPipeline& pipeline, const std::string& name, const Options& options) {
  try {
    int64_t id = run::open_run(pipeline, options.scope, options.run_options, std::nullopt, std::nullopt);
    run::attach_source(run::open_for_parts(id));
    run::Worker(*ledger::find_run(id), run::Commits::no).check_blockers();
    return id;
  } catch (const Error& error) {
    const bridge::ErrorReport& report = error.report();
    throw Error(error.code(), report.message)
        .detail("In pipeline \"" + name + "\"." + (report.detail.empty() ? "" : " " + report.detail))
        .hint(report.hint);
  }
}

}  // namespace

int64_t open_group(const std::vector<std::string>& pipelines, const std::string& options_text) {
  Options options = parse_options(options_text);
  run::require_scope(options.scope);
  Selection selection = select(pipelines);
  refuse_cycles(selection.order);
  ledger::Group group;
  group.scope = options.scope;
  group.workers = options.workers;
  group.background = options.background;
  int64_t id = ledger::insert_group(group, options.run_options);
  std::map<size_t, int64_t> runs;
  for (size_t i : selection.sequence) {
    ledger::Member member;
    member.run = runs[i] = open_member(selection.pipelines[i], selection.nodes[i].pipeline, options);
    member.level = selection.order.level[i];
    for (size_t first : selection.order.waits_for[i]) member.waits_for.push_back(runs.at(first));
    ledger::insert_member(id, member);
  }
  return id;
}

}  // namespace portage::group
