// See pass.hpp.
#include "pipeline/pass.hpp"

namespace portage {

using bridge::Error;

Blame blame_of_expression(int code) {
  switch (ERRCODE_TO_CATEGORY(code)) {
    case MAKE_SQLSTATE('4', '0', '0', '0', '0'):  // serialization, deadlock
    case MAKE_SQLSTATE('5', '7', '0', '0', '0'):  // cancel, shutdown
      return Blame::outside;
  }
  switch (code) {
    case ERRCODE_DISK_FULL:
    case ERRCODE_IO_ERROR:
    case ERRCODE_DATA_CORRUPTED:
    case ERRCODE_INDEX_CORRUPTED:
      return Blame::outside;
    case ERRCODE_UNDEFINED_FUNCTION:
    case ERRCODE_UNDEFINED_COLUMN:
    case ERRCODE_UNDEFINED_PARAMETER:
      return Blame::unclear;
    default:
      return bridge::concerns_whole_batch(code) ? Blame::unclear : Blame::item;
  }
}

Blame blame_of_value(int code) {
  Blame blame = blame_of_expression(code);
  bool of_name = ERRCODE_TO_CATEGORY(code) == ERRCODE_TO_CATEGORY(ERRCODE_UNDEFINED_TABLE) &&
                 code != ERRCODE_INSUFFICIENT_PRIVILEGE;
  return blame == Blame::unclear && of_name ? Blame::item : blame;
}

Blame blame_of_bytes(int code) {
  return blame_of_expression(code) == Blame::outside ? Blame::outside : Blame::item;
}

namespace {

/// An error raised without any item at hand that passes, of which nothing is known then but its SQLSTATE:
/// what code does not expect (elog) is hardly ever there for all items.
bool is_of_data(int code) { return ERRCODE_TO_CATEGORY(code) == ERRCODE_TO_CATEGORY(ERRCODE_INTERNAL_ERROR); }

/// So many items that fail one after the other are looked at before the pass is given up.
constexpr size_t failures_without_good = 32;

class Pass {
 public:
  Pass(Work& work, Stop (*pass)(Work*)) : work_(work), pass_(pass) {}

  Item& item(size_t i) const { return work_.meetings ? *work_.meetings[i]->item : *work_.items[i]; }

  /// Whether the item has passed, with nothing that could have kept it from being looked at.
  bool is_good(size_t i) const {
    return item(i).outcome == Outcome::pending && (!work_.states || work_.states[i].active);
  }

  /// Tries items once more that have passed already: whether there are such, and they pass.
  enum class Answer { none, pass, fail };
  Answer try_good(std::optional<Error>& error) {
    constexpr int most = 3;  // an item without the value in question proves little
    int tried = 0;
    for (size_t i = work_.item; i-- > 0 && tried < most;) {
      if (!is_good(i)) continue;
      tried++;
      if (std::optional<Error> again = try_again(i)) {
        error = again;
        return Answer::fail;
      }
    }
    return tried ? Answer::pass : Answer::none;
  }

  /// Whether any of some items that are still to come passes.
  bool try_ahead() {
    size_t left = work_.count - work_.item, step = std::max<size_t>(left / failures_without_good, 1);
    for (size_t i = work_.item + 1; i < work_.count; i += step)
      if (is_good(i) && !try_again(i)) return true;
    return false;
  }

  bool any_good() const {
    for (size_t i = 0; i < work_.count; i++)
      if (is_good(i)) return true;
    return false;
  }

  /// The error, and whose it is not.
  [[noreturn]] void raise(const Error& error, size_t i, const char* also) const {
    Error raised = error;
    std::string about =
        bridge::format("Raised for item %lld (line %lld)%s.", static_cast<long long>(item(i).ordinal),
                       static_cast<long long>(item(i).record.line), also);
    raised.change(
        [&](bridge::ErrorReport& report) { report.detail += (report.detail.empty() ? "" : " ") + about; });
    throw raised;
  }

 private:
  /// The item is afterwards as it was.
  std::optional<Error> try_again(size_t i) {
    Work again = work_;
    again.item = i;
    again.step = 0;
    again.count = i + 1;
    Item& good = item(i);
    Item before = good;
    size_t natts = static_cast<size_t>(work_.body->target.natts);
    std::vector<Datum> values(good.values, good.values + natts);
    std::vector<char> nulls(natts);
    memcpy(nulls.data(), good.nulls, natts);
    std::optional<ItemState> state;
    if (work_.states) state = work_.states[i];
    std::string_view id, key;
    if (work_.ids) id = work_.ids[i];
    std::optional<bool> newer;
    if (work_.meetings) newer = work_.meetings[i]->newer;
    std::optional<Error> error;
    try {
      bridge::Subtransaction nothing_remains;
      Work* w = &again;
      Stop (*pass)(Work*) = pass_;
      bridge::guarded([=] {
        while (pass(w) != Stop::done) w->step++;
      });
    } catch (const Error& raised) {
      error = raised;
    }
    good = before;
    memcpy(good.values, values.data(), natts * sizeof(Datum));
    memcpy(good.nulls, nulls.data(), natts);
    if (state) work_.states[i] = *state;
    if (work_.ids) work_.ids[i] = id;
    if (newer) work_.meetings[i]->newer = *newer;
    return error;
  }

  Work& work_;
  Stop (*pass_)(Work*);
};

}  // namespace

void run_pass(Work& work, Stop (*pass)(Work*), Blame (*blame)(int), const std::function<void(Stop)>& found,
              const std::function<void(const Error&)>& failed) {
  work.item = 0;
  work.step = 0;
  Work* w = &work;
  Pass all(work, pass);
  std::optional<std::pair<size_t, Error>> open;  // the first item that failed before any had passed
  size_t failures = 0;                           // likewise
  while (true) {
    auto error = bridge::attempt([&] {
      while (true) {
        Stop stop = bridge::guarded([=] { return pass(w); });
        if (stop == Stop::done) return;
        found(stop);
        w->step++;
      }
    });
    if (!error) break;
    Blame whose = blame(error->code());
    if (whose == Blame::outside) throw *error;
    if (whose == Blame::unclear) {
      std::optional<Error> of_good;
      Pass::Answer answer = all.try_good(of_good);
      if (answer == Pass::Answer::fail && blame(of_good->code()) != Blame::item)
        all.raise(blame(of_good->code()) == Blame::outside ? *of_good : *error, work.item,
                  ", and for one that had passed before");
      if (answer == Pass::Answer::none) {
        if (!open) open.emplace(work.item, *error);
        if (!is_of_data(error->code()) && ++failures == failures_without_good && !all.try_ahead())
          all.raise(open->second, open->first, ", and for all that were tried after it");
      }
    }
    failed(*error);
    w->step++;
  }
  if (open && !is_of_data(open->second.code()) && !all.any_good())
    all.raise(open->second, open->first, ", and no item of the batch passes");
}

}  // namespace portage
