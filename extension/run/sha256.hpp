// SHA-256 by OpenSSL, in one go or piece by piece. Not by the server's own wrapper: that one ties its state
// to a transaction, and a part is read over many.
#pragma once

#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace portage::run {

class Sha256 {
 public:
  Sha256();  ///< throws std::bad_alloc
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void add(std::string_view bytes);
  /// The 32 bytes of the digest; nothing may be added afterwards.
  std::string finish();

 private:
  evp_md_ctx_st* context_;
};

/// The digest of some bytes, 32 bytes.
std::string sha256(std::string_view bytes);

}  // namespace portage::run
