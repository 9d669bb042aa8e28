// Parts that are bytes: chunks, files, large objects. See source.hpp; rows are in rows_part.cpp.
#include "run/source.hpp"

#include "bridge/codes.hpp"
#include "bridge/subxact.hpp"
#include "run/rows_part.hpp"
#include "run/sha256.hpp"

#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

namespace portage::run {
namespace {

using bridge::Error;
using bridge::guarded;

void require_server_files() {
  if (guarded([] { return has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES); })) return;
  char* role = guarded([] { return GetUserNameFromId(GetUserId(), false); });
  throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied to read a file on the server")
      .detail("Only roles with the privileges of pg_read_server_files may attach files.")
      .hint("GRANT pg_read_server_files TO " + bridge::quoted(role) +
            "; or send the bytes with portage.submit().");
}

std::string timestamp_of(const struct timespec& t) {
  TimestampTz stamp = static_cast<TimestampTz>(t.tv_sec) * USECS_PER_SEC + t.tv_nsec / 1000 -
                      (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
  char* text = guarded([=] { return pstrdup(timestamptz_to_str(stamp)); });
  return text;
}

[[noreturn]] void file_error(const std::string& path, const char* what, int number) {
  int code = number == ENOENT || number == ENOTDIR ? ERRCODE_UNDEFINED_FILE
             : number == EACCES || number == EPERM ? ERRCODE_INSUFFICIENT_PRIVILEGE
                                                   : ERRCODE_IO_ERROR;
  throw Error(code, bridge::format("could not %s file \"%s\": %s", what, path.c_str(), strerror(number)))
      .hint(
          "The path is on the server, and is read by the server's operating system user. What lies with the "
          "client is sent as payload.");
}

class FileSource final : public formats::ByteSource {
 public:
  FileSource(const ledger::Part& part, uint64_t offset) : part_(part) {
    require_server_files();
    // What is no file any more is not opened, or not waited for: a FIFO would wait for somebody who writes.
    struct stat named;
    if (::stat(part.path.c_str(), &named) == 0 && !S_ISREG(named.st_mode)) throw changed(replaced);
    fd_ = ::open(part.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd_ < 0 && errno == ENOENT) throw changed("it is gone");
    if (fd_ < 0) file_error(part.path, "open", errno);
    try {
      check();
      if (::lseek(fd_, static_cast<off_t>(offset), SEEK_SET) < 0) file_error(part.path, "seek in", errno);
    } catch (...) {
      ::close(fd_);
      throw;
    }
    ::posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  ~FileSource() override { ::close(fd_); }

  size_t read(char* buffer, size_t capacity) override {
    for (;;) {
      ssize_t got = ::read(fd_, buffer, capacity);
      if (got >= 0) return static_cast<size_t>(got);
      if (errno != EINTR) file_error(part_.path, "read", errno);
      bridge::check_interrupts();
    }
  }

  /// The open file and the name still are what was attached.
  void check() const {
    struct stat open_file, named;
    if (::fstat(fd_, &open_file) != 0) file_error(part_.path, "stat", errno);
    if (::stat(part_.path.c_str(), &named) != 0) throw changed("it is gone");
    if (named.st_dev != open_file.st_dev || named.st_ino != open_file.st_ino ||
        static_cast<int64_t>(open_file.st_ino) != part_.inode.value_or(0) ||
        static_cast<int64_t>(open_file.st_dev) != part_.device.value_or(0))
      throw changed(replaced);
    if (open_file.st_size != part_.byte_length.value_or(0))
      throw changed(bridge::format("it had %lld bytes and has %lld",
                                   static_cast<long long>(part_.byte_length.value_or(0)),
                                   static_cast<long long>(open_file.st_size)));
    // timestamps are compared as microseconds, which is what the ledger keeps
    if (part_.modified_us && *part_.modified_us != microseconds(open_file.st_mtim))
      throw changed("it was written to");
  }

  static int64_t microseconds(const struct timespec& t) {
    return static_cast<int64_t>(t.tv_sec) * 1000000 + t.tv_nsec / 1000;
  }

 private:
  Error changed(const std::string& how) const {
    return Error(codes::source_changed, "file \"" + part_.path + "\" changed since it was attached")
        .detail(how.empty() ? "" : std::string(1, static_cast<char>(toupper(how[0]))) + how.substr(1) + ".")
        .hint("What was committed stays. Open a new run for the new content: unchanged items are skipped.");
  }

  static constexpr const char* replaced = "another file stands in its place";
  const ledger::Part part_;
  int fd_ = -1;
};

class ChunkSource final : public formats::ByteSource {
 public:
  ChunkSource(int64_t run_id, const ledger::Part& part, uint64_t offset)
      : run_id_(run_id), part_(part.number), chunks_(ledger::chunks_of(run_id, part.number)) {
    while (next_ < chunks_.size() && offset >= static_cast<uint64_t>(chunks_[next_].length))
      offset -= static_cast<uint64_t>(chunks_[next_++].length);
    skip_ = offset;
  }
  size_t read(char* buffer, size_t capacity) override {
    while (position_ >= current_.size()) {
      if (next_ >= chunks_.size()) return 0;
      current_ = ledger::chunk_bytes(run_id_, part_, chunks_[next_++].number);
      position_ = skip_;
      skip_ = 0;
    }
    size_t size = std::min(capacity, current_.size() - position_);
    memcpy(buffer, current_.data() + position_, size);
    position_ += size;
    return size;
  }

 private:
  int64_t run_id_;
  int32_t part_;
  std::vector<ledger::Chunk> chunks_;
  size_t next_ = 0;
  std::string current_;
  size_t position_ = 0;
  uint64_t skip_ = 0;
};

class MemorySource final : public formats::ByteSource {
 public:
  explicit MemorySource(std::string_view bytes) : left_(bytes) {}
  size_t read(char* buffer, size_t capacity) override {
    size_t size = std::min(capacity, left_.size());
    if (size > 0) memcpy(buffer, left_.data(), size);
    left_.remove_prefix(size);
    return size;
  }

 private:
  std::string_view left_;
};

class LargeObjectSource final : public formats::ByteSource {
 public:
  LargeObjectSource(Oid oid, uint64_t offset) : oid_(oid), offset_(static_cast<int64_t>(offset)) {}
  size_t read(char* buffer, size_t capacity) override {
    int32_t size = static_cast<int32_t>(std::min<size_t>(capacity, 1 << 20));
    static const bridge::Statement get("SELECT pg_catalog.lo_get($1, $2, $3)");
    bridge::Result rows = get({bridge::param_oid(oid_), bridge::param(offset_), bridge::param(size)});
    std::string bytes = bridge::string_of(rows.datum(0, 1));
    memcpy(buffer, bytes.data(), bytes.size());
    offset_ += static_cast<int64_t>(bytes.size());
    return bytes.size();
  }

 private:
  Oid oid_;
  int64_t offset_;
};

/// Passes bytes on and digests them.
class DigestingSource final : public formats::ByteSource {
 public:
  explicit DigestingSource(formats::ByteSource& source) : source_(source) {}
  size_t read(char* buffer, size_t capacity) override {
    size_t got = source_.read(buffer, capacity);
    at_end_ = got == 0;
    if (!at_end_) hash_.add({buffer, got});
    return got;
  }
  std::optional<std::string> digest() {
    if (!at_end_) return std::nullopt;
    return hash_.finish();
  }

 private:
  formats::ByteSource& source_;
  Sha256 hash_;
  bool at_end_ = false;
};

std::unique_ptr<formats::ByteSource> open_source(int64_t run_id, const ledger::Part& part, uint64_t offset) {
  if (part.kind == "file") return std::make_unique<FileSource>(part, offset);
  if (part.kind == "large_object") return std::make_unique<LargeObjectSource>(part.large_object, offset);
  return std::make_unique<ChunkSource>(run_id, part, offset);
}

uint64_t offset_of(const ledger::Range* resume) { return resume ? resume->checkpoint.offset : 0; }

class BytePart final : public OpenPart {
 public:
  /// `source` delivers from the cursor on.
  BytePart(std::unique_ptr<formats::ByteSource> source, const ledger::Part& part, Format format,
           formats::Options options, const ledger::Range* resume)
      : part_(part), source_(std::move(source)) {
    uint64_t offset = offset_of(resume);
    if (part_.kind == "file") file_ = static_cast<FileSource*>(source_.get());
    formats::ByteSource* bytes = source_.get();
    if (offset == 0) {
      digesting_ = std::make_unique<DigestingSource>(*source_);
      bytes = digesting_.get();
    }
    const formats::Checkpoint* checkpoint = resume && offset > 0 ? &resume->checkpoint : nullptr;
    switch (format) {
      case Format::json:
        reader_ = formats::open_json(*bytes, std::move(options), checkpoint);
        break;
      case Format::csv:
        reader_ = formats::open_csv(*bytes, std::move(options), checkpoint);
        break;
      case Format::ndjson:
      case Format::rows:
        reader_ = formats::open_ndjson(*bytes, std::move(options), checkpoint);
        break;
    }
  }
  formats::Reader& reader() override { return *reader_; }
  void check_unchanged() override {
    if (file_) file_->check();
  }
  std::optional<std::string> digest() override { return digesting_ ? digesting_->digest() : std::nullopt; }
  std::optional<int64_t> total_bytes() const override { return part_.byte_length; }

 private:
  ledger::Part part_;
  std::unique_ptr<formats::ByteSource> source_;
  std::unique_ptr<DigestingSource> digesting_;  // reading from the first byte on
  FileSource* file_ = nullptr;
  std::unique_ptr<formats::Reader> reader_;
};

}  // namespace

std::unique_ptr<OpenPart> open_part(int64_t run_id, const ledger::Part& part, const Plan& plan,
                                    formats::Options options, const ledger::Range* resume) {
  if (part.kind == "query") return open_rows(part, plan.stored(), std::move(options), resume);
  return std::make_unique<BytePart>(open_source(run_id, part, offset_of(resume)), part,
                                    plan.definition().format, std::move(options), resume);
}

std::unique_ptr<OpenPart> open_bytes(std::string_view bytes, const ledger::Part& part, const Plan& plan,
                                     formats::Options options) {
  return std::make_unique<BytePart>(std::make_unique<MemorySource>(bytes), part, plan.definition().format,
                                    std::move(options), nullptr);
}

std::string read_span(int64_t run_id, const ledger::Part& part, uint64_t offset, uint64_t length) {
  std::unique_ptr<formats::ByteSource> source = open_source(run_id, part, offset);
  std::string bytes;
  std::string piece(1 << 20, '\0');
  while (bytes.size() < length) {
    size_t got = source->read(piece.data(), std::min<uint64_t>(piece.size(), length - bytes.size()));
    if (got == 0) break;
    bytes.append(piece, 0, got);
    bridge::check_interrupts();
  }
  return bytes;
}

std::vector<ledger::Part> files_of(const std::string& pattern) {
  require_server_files();
  if (pattern.empty() || pattern[0] != '/')
    throw Error(ERRCODE_INVALID_NAME, "the path of a file must be absolute: \"" + pattern + "\"")
        .hint("Give the path on the server, beginning with \"/\".");
  std::vector<std::string> paths;
  if (pattern.find_first_of("*?[") == std::string::npos) {
    paths.push_back(pattern);
  } else {
    glob_t found;
    int code = ::glob(pattern.c_str(), GLOB_ERR, nullptr, &found);  // sorted by name
    for (size_t i = 0; code == 0 && i < found.gl_pathc; i++) paths.emplace_back(found.gl_pathv[i]);
    ::globfree(&found);
    if (code == GLOB_NOMATCH || (code == 0 && paths.empty()))
      throw Error(ERRCODE_UNDEFINED_FILE, "no file matches \"" + pattern + "\"")
          .hint("The pattern is matched on the server.");
    if (code != 0) file_error(pattern, "look up", code == GLOB_NOSPACE ? ENOMEM : EACCES);
  }
  std::vector<ledger::Part> parts;
  for (const std::string& path : paths) {
    char* canonical = ::realpath(path.c_str(), nullptr);
    if (!canonical) file_error(path, "find", errno);
    ledger::Part part;
    part.path = canonical;
    ::free(canonical);
    struct stat file;
    if (::stat(part.path.c_str(), &file) != 0) file_error(part.path, "stat", errno);
    if (!S_ISREG(file.st_mode))
      throw Error(ERRCODE_WRONG_OBJECT_TYPE, "\"" + part.path + "\" is not a regular file")
          .hint(S_ISDIR(file.st_mode)
                    ? "Directories are attached by a glob such as \"" + part.path + "/*.json\"."
                    : "");
    if (::access(part.path.c_str(), R_OK) != 0) file_error(part.path, "read", errno);
    part.kind = "file";
    part.name = part.path.substr(part.path.rfind('/') + 1);
    part.byte_length = file.st_size;
    part.device = static_cast<int64_t>(file.st_dev);
    part.inode = static_cast<int64_t>(file.st_ino);
    part.modified_at = timestamp_of(file.st_mtim);
    parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace portage::run
