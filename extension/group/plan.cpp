// plan_group(): what a group would meet, as JSON: its order, and what plan() says of each run that it would
// have. Writes nothing that stays.
#include <nlohmann/json.hpp>

#include "group/plan.hpp"

#include "bridge/codes.hpp"
#include "bridge/json.hpp"
#include "bridge/subxact.hpp"
#include "group/opening.hpp"
#include "run/entry_points.hpp"
#include "run/plan_report.hpp"
#include "run/preflight.hpp"

namespace portage::group {
namespace {

using bridge::Error;
using Json = nlohmann::ordered_json;

Json blocker(const Json& pipeline, int sqlstate, const std::string& message, const std::string& detail,
             const std::string& remedy) {
  return {{"pipeline", pipeline},
          {"sqlstate", bridge::sqlstate_text(sqlstate)},
          {"message", message},
          {"detail", detail},
          {"remedy", remedy}};
}

class GroupPlan {
 public:
  GroupPlan(Selection selection, std::string scope)
      : selection_(std::move(selection)), scope_(std::move(scope)) {}

  Json work() {
    look_at_cycles();
    Json order = Json::array();
    for (size_t i : selection_.sequence) {
      size_t level = static_cast<size_t>(selection_.order.level[i]);
      if (order.size() <= level) order.push_back(Json::array());
      order[level].push_back(selection_.nodes[i].pipeline);
    }
    std::optional<run::Blocker> read_only = run::read_only_blocker();
    if (read_only)
      blockers_.push_back(
          blocker(nullptr, read_only->sqlstate, read_only->message, read_only->detail, read_only->remedy));
    for (size_t i : selection_.sequence) {
      look_for_others(i);
      if (read_only)
        pipelines_.push_back(described(i));
      else
        look_at(i);
    }
    Json answer;
    answer["can_proceed"] = blockers_.empty();
    answer["order"] = selection_.order.possible() ? order : Json(nullptr);
    answer["blockers"] = blockers_;
    answer["pipelines"] = pipelines_;
    answer["estimated_items"] = items_;
    answer["estimated_duration"] = run::interval_text(seconds_);
    answer["estimated_duration_basis"] = bridge::format(
        "one pipeline after the other; completed runs of %zu of %zu", by_history_, selection_.nodes.size());
    answer["estimated_ledger_bytes"] = ledger_bytes_;
    answer["estimated_wal_bytes"] = wal_bytes_;
    answer["recommendations"] = recommendations_;
    return answer;
  }

 private:
  void look_at_cycles() {
    for (const Order::Cycle& cycle : selection_.order.cycles) {
      if (cycle.hard)
        blockers_.push_back(blocker(nullptr, codes::blocked, "the pipelines wait for each other",
                                    shown(cycle), "Take one of them out, or out of the other's \"after\"."));
      else
        recommend(nullptr, "mutual_references",
                  "They refer to each other: " + shown(cycle) +
                      ". What is not there yet is parked, and settled when the other has landed.",
                  "");
    }
  }

  void recommend(const Json& pipeline, const std::string& code, const std::string& text,
                 const std::string& sql) {
    recommendations_.push_back({{"pipeline", pipeline}, {"code", code}, {"text", text}, {"sql", sql}});
  }

  bool has(const std::string& pipeline) const {
    return std::any_of(selection_.nodes.begin(), selection_.nodes.end(),
                       [&](const Node& node) { return node.pipeline == pipeline; });
  }

  void look_for_others(size_t i) {
    const Node& node = selection_.nodes[i];
    std::set<std::string> told;
    for (const auto* names : {&node.references, &node.after})
      for (const std::string& name : *names) {
        if (has(name) || !told.insert(name).second) continue;
        recommend(node.pipeline, "not_in_group",
                  names == &node.references
                      ? "It refers to pipeline \"" + name +
                            "\", which is not in the group: what that has not migrated by the end of the "
                            "group becomes a reject."
                      : "It comes after pipeline \"" + name +
                            "\", which is not in the group: it begins whether that has run or not.",
                  "");
      }
  }

  Json described(size_t i) const {
    Json firsts = Json::array();
    for (size_t first : selection_.order.waits_for[i]) firsts.push_back(selection_.nodes[first].pipeline);
    return {{"pipeline", selection_.nodes[i].pipeline},
            {"level", selection_.order.level[i]},
            {"waits_for", firsts}};
  }

  /// A run that is opened only to be looked at.
  void look_at(size_t i) {
    const std::string& name = selection_.nodes[i].pipeline;
    Json plan;
    std::optional<Error> error = bridge::attempt([&] {
      bridge::Subtransaction undone;
      int64_t id = run::open_run(selection_.pipelines[i], scope_, "{}", std::nullopt, std::nullopt, false);
      run::attach_source(*ledger::find_run(id));
      plan = Json::parse(run::plan_of(*ledger::find_run(id)));
    });
    Json entry = described(i);
    if (error) {
      if (bridge::is_interrupt(error->code())) throw *error;
      const bridge::ErrorReport& report = error->report();
      blockers_.push_back(blocker(name, error->code(), report.message, report.detail, report.hint));
      pipelines_.push_back(entry);
      return;
    }
    auto take_over = [&](const char* list, Json& into) {
      for (const Json& one : plan[list]) {
        Json with_name = {{"pipeline", name}};
        with_name.update(one);
        into.push_back(with_name);
      }
    };
    take_over("blockers", blockers_);
    take_over("recommendations", recommendations_);
    bool counted = true, copied = false;
    for (const Json& part : plan["data_breakdown"]) {
      counted = counted && part["kind"] == "query";
      copied = copied || part["kind"] == "payload";
    }
    if (copied && !selection_.order.waits_for[i].empty())
      recommend(
          name, "source_copied",
          "Its source has no key: it is copied when the group is opened, before the pipelines that come "
          "first have run.",
          "");
    int64_t items = plan["estimated_items"].get<int64_t>();
    run::Duration duration = run::estimated_duration(selection_.pipelines[i].id, items);
    entry["items"] = items;
    entry["items_basis"] = counted ? "counted" : "from the size of the first items of each part";
    for (const char* same : {"data_breakdown", "estimated_duration", "estimated_duration_basis", "writer"})
      entry[same] = plan[same];
    pipelines_.push_back(entry);
    items_ += items;
    seconds_ += duration.seconds;
    by_history_ += duration.by_history;
    ledger_bytes_ += plan["estimated_ledger_bytes"].get<int64_t>();
    wal_bytes_ += plan["estimated_wal_bytes"].get<int64_t>();
  }

  Selection selection_;
  std::string scope_;
  Json blockers_ = Json::array(), recommendations_ = Json::array(), pipelines_ = Json::array();
  int64_t items_ = 0, ledger_bytes_ = 0, wal_bytes_ = 0;
  double seconds_ = 0;
  size_t by_history_ = 0;
};

}  // namespace

std::string plan_of(const std::vector<std::string>& pipelines, const std::string& scope) {
  return GroupPlan(select(pipelines), scope).work().dump();
}

}  // namespace portage::group
