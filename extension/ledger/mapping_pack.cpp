// See mapping_pack.hpp. Of each id stands what it does not share with the one before; ordinals are
// differences. The hashes are all that does not get smaller.
#include "ledger/mapping_pack.hpp"

namespace portage::ledger {

namespace {

constexpr char version = 1;

}  // namespace

std::string order_key(std::string_view legacy_id) {
  std::string key;
  key.reserve(legacy_id.size() + 2);
  key += static_cast<char>(legacy_id.size() >> 8 & 255);
  key += static_cast<char>(legacy_id.size() & 255);
  key += legacy_id;
  return key;
}

void MappingPacker::clear() {
  content_.clear();
  id_.clear();
  count_ = 0;
}

void MappingPacker::add(const PackedMapping& m) {
  if (count_ == 0) {
    content_.assign(1, version);
    ordinal_ = 0;
  }
  size_t shared = 0, most = std::min(id_.size(), m.legacy_id.size());
  while (shared < most && id_[shared] == m.legacy_id[shared]) shared++;
  Encoder out{content_};
  out.number(shared);
  out.number(m.legacy_id.size() - shared);
  content_ += m.legacy_id.substr(shared);
  out.number(m.target_key.size());
  content_ += m.target_key;
  content_ += m.origin;
  out.fixed(m.source_hash);
  out.fixed(m.row_hash);
  out.signed_number(m.ordinal - ordinal_ - 1);
  id_ = m.legacy_id;
  ordinal_ = m.ordinal;
  count_++;
}

MappingUnpacker::MappingUnpacker(const char* bytes, size_t size)
    : in_{bytes, bytes + size, size > 0 && *bytes == version} {
  if (in_.good) in_.at++;
}

bool MappingUnpacker::next(PackedMapping* m) {
  if (!in_.good || in_.at == in_.end) return false;
  uint64 shared = in_.number(), rest = in_.number();
  in_.good = in_.good && shared <= id_size_ && rest <= sizeof id_ - shared;
  if (!in_.good) return false;
  if (const char* bytes = in_.bytes(rest)) memcpy(id_ + shared, bytes, rest);
  id_size_ = shared + rest;
  uint64 key_size = in_.number();
  const char* key = in_.bytes(key_size);
  const char* origin = in_.bytes(1);
  m->source_hash = in_.fixed();
  m->row_hash = in_.fixed();
  m->ordinal = ordinal_ = plus(ordinal_, plus(in_.signed_number(), 1));
  in_.good = in_.good && (*origin == 'i' || *origin == 'a' || *origin == 'o');
  if (!in_.good) return false;
  m->legacy_id = {id_, id_size_};
  m->target_key = {key, key_size};
  m->origin = *origin;
  seen_++;
  return true;
}

}  // namespace portage::ledger
