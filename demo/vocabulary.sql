CREATE TABLE progress (
  user_name        text,
  word             text,
  language         char(3) NOT NULL REFERENCES languages,
  review_count     integer NOT NULL,
  correct_count    integer NOT NULL,
  interval_days    integer NOT NULL,
  ease_factor      double precision NOT NULL,
  last_reviewed_at timestamptz,
  PRIMARY KEY (user_name, word)
);

SELECT portage.create_pipeline('vocabulary', 'progress', $$
{ "format":    "json",
  "items":     "progress",
  "legacy_id": "id",
  "data_version": {"from": "dataVersion", "accept": ["2.0", "2.1"]},
  "columns": {
    "user_name": "$scope",  "word": "id",  "language": "lang",
    "review_count":     "reviewCount",
    "correct_count":    {"from": "correctCount", "default": 0},
    "interval_days":    "srs.interval",
    "ease_factor":      {"from": "srs.ease", "default": 2.5},
    "last_reviewed_at": "lastReviewedAt" },
  "rules": {
    "reviews_not_negative":   "review_count >= 0",
    "correct_within_reviews": {"sql": "correct_count <= review_count",
                               "message": "more correct than reviewed"},
    "interval_positive":      "interval_days > 0",
    "ease_positive":          "ease_factor > 0" }
}$$);
