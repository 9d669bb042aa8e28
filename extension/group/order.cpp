// See order.hpp.
#include "group/order.hpp"

#include <algorithm>
#include <optional>

namespace portage::group {
namespace {

using Steps = std::vector<std::vector<size_t>>;

std::optional<size_t> position(const std::vector<Node>& nodes, const std::string& name) {
  for (size_t i = 0; i < nodes.size(); i++)
    if (nodes[i].pipeline == name) return i;
  return std::nullopt;
}

/// A shortest way from one node to another over at least one step, both included; empty: there is none.
std::vector<size_t> way(const Steps& steps, size_t from, size_t to) {
  std::vector<std::optional<size_t>> before(steps.size());
  std::vector<size_t> reached{from};
  for (size_t next = 0; next < reached.size(); next++)
    for (size_t step : steps[reached[next]]) {
      if (step != to && (step == from || before[step])) continue;
      before[step] = reached[next];
      if (step != to) {
        reached.push_back(step);
        continue;
      }
      std::vector<size_t> found{to};
      do found.push_back(*before[found.back()]);
      while (found.back() != from);
      std::reverse(found.begin(), found.end());
      return found;
    }
  return {};
}

}  // namespace

bool Order::possible() const {
  return std::none_of(cycles.begin(), cycles.end(), [](const Cycle& cycle) { return cycle.hard; });
}

Order order_of(const std::vector<Node>& nodes) {
  size_t n = nodes.size();
  Steps all(n), after(n);
  for (size_t i = 0; i < n; i++) {
    auto add = [&](const std::vector<std::string>& names, Steps& steps) {
      for (const std::string& name : names)
        if (auto to = position(nodes, name); to && *to != i) steps[i].push_back(*to);
    };
    add(nodes[i].references, all);
    add(nodes[i].after, all);
    add(nodes[i].after, after);
  }
  Order order;
  order.level.assign(n, 0);
  order.waits_for.resize(n);
  // A step from which there is a way back lies on a cycle.
  std::vector<bool> told(n);
  for (bool hard : {true, false})
    for (size_t i = 0; i < n; i++)
      for (size_t step : hard ? after[i] : all[i]) {
        std::vector<size_t> back = way(all, step, i);
        if (back.empty()) {
          if (!hard) order.waits_for[i].push_back(step);
          continue;
        }
        if (std::all_of(back.begin(), back.end(), [&](size_t one) { return told[one]; })) continue;
        Order::Cycle cycle{{nodes[i].pipeline}, hard};
        for (size_t one : back) {
          cycle.names.push_back(nodes[one].pipeline);
          told[one] = true;
        }
        order.cycles.push_back(cycle);
      }
  for (std::vector<size_t>& firsts : order.waits_for) {
    std::sort(firsts.begin(), firsts.end());
    firsts.erase(std::unique(firsts.begin(), firsts.end()), firsts.end());
  }
  // Without the cycles, as many rounds as nodes are enough for the longest chain.
  for (size_t round = 0; round < n; round++)
    for (size_t i = 0; i < n; i++)
      for (size_t first : order.waits_for[i])
        order.level[i] = std::max(order.level[i], order.level[first] + 1);
  return order;
}

}  // namespace portage::group
