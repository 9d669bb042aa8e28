// The transactions of a procedure that commits, and the subtransaction that is open in each of them: see
// spi.hpp.
#include "bridge/deferral.hpp"
#include "bridge/subxact.hpp"

namespace portage::bridge {
namespace {

constinit Spi* innermost = nullptr;
constinit uint64_t rolled_back = 0;

struct Task {
  void (*f)(Datum);
  Datum arg;
};

constexpr size_t most_tasks = 16;
constinit Task tasks[most_tasks];
constinit size_t task_count = 0;

void work_off_tasks() {
  while (task_count > 0) {
    Task task = tasks[--task_count];
    guarded([=] { task.f(task.arg); });
  }
}

void check_spi(int code) {
  if (code < 0) throw Error(ERRCODE_INTERNAL_ERROR, format("SPI failed: %s", SPI_result_code_string(code)));
}

}  // namespace

Spi::Spi(bool nonatomic) : outer_(innermost), nonatomic_(nonatomic) {
  MemoryContext own = nullptr;
  check_spi(guarded([=, own = &own] {
    int code = SPI_connect_ext(nonatomic ? SPI_OPT_NONATOMIC : 0);
    *own = CurrentMemoryContext;
    return code;
  }));
  memory_ = own;
  if (nonatomic_) begin();
  innermost = this;
}

/// After an error the end of the caller's (sub)transaction closes the connection.
Spi::~Spi() {
  innermost = outer_;
  if (!kept_) return;
  MemoryContext context = CurrentMemoryContext;
  kept_.reset();
  MemoryContextSwitchTo(context);
  try {
    work_off_tasks();
  } catch (...) {
    // The error that is on its way is told, rather than this one.
  }
}

void Spi::finish() {
  if (nonatomic_) work_off_tasks();
  end();
  check_spi(guarded([] { return SPI_finish(); }));
}

MemoryContext Spi::memory() { return innermost ? innermost->memory_ : CurrentMemoryContext; }

/// What belongs to the subtransaction is not in whatever memory the caller happens to be.
void Spi::begin() {
  MemoryContext before = MemoryContextSwitchTo(memory_);
  kept_ = std::make_unique<Subtransaction>();
  MemoryContextSwitchTo(before);
}

void Spi::end() {
  if (!kept_) return;
  MemoryContext before = CurrentMemoryContext;
  kept_->release();
  kept_.reset();
  MemoryContextSwitchTo(before);
}

Spi& Spi::committing() {
  if (!innermost || !innermost->nonatomic_)
    throw Error(ERRCODE_INVALID_TRANSACTION_TERMINATION, "this call does not end transactions");
  return *innermost;
}

void commit() {
  Assert(Result::none());
  Spi& spi = Spi::committing();
  spi.end();
  std::optional<Error> failed;
  try {
    guarded([] { SPI_commit(); });
  } catch (const Error& error) {
    failed = error;
    rolled_back++;
  }
  spi.begin();
  transaction_is_ours();
  if (failed) throw *failed;
}

void rollback() {
  Spi& spi = Spi::committing();
  MemoryContext before = CurrentMemoryContext;
  if (spi.kept_) {
    spi.kept_->rollback();
    spi.kept_.reset();
  }
  MemoryContextSwitchTo(before);
  rolled_back++;
  guarded([] { SPI_rollback(); });
  spi.begin();
  transaction_is_ours();
  work_off_tasks();
}

uint64_t rollbacks() { return rolled_back; }

void when_rolled_back(void (*f)(Datum), Datum arg) noexcept {
  if (task_count < most_tasks) tasks[task_count++] = {f, arg};
}

}  // namespace portage::bridge
