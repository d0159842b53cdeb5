// Where couchrep's replicator documents differ from CouchDB's, and why.
//
// A rule covers the differences whose path matches `at`, of these documents if it names some, and whose values match if it has
// words for them. The first that covers one explains it.

const CRASHING = [
  'filter-broken',
  'source-missing',
  'target-missing',
  'source-password',
  'target-password',
  'source-forbidden',
  'refused',
  'unknown-host',
  'mended',
  'roles',
];

export const expected = [
  // What couchrep tells besides.
  { at: /\.docs\.(next_try|paused)$/, couchdb: /^undefined$/, why: 'when it is tried again, and whether somebody paused it' },
  {
    at: /\.job\.(state|error_count|next_try|paused)$/,
    couchdb: /^undefined$/,
    why: 'the state of a job, its failures and its next try, which CouchDB tells of documents alone, or not at all',
  },
  {
    id: CRASHING,
    at: /\.document\._replication_state(_time|_reason)?$/,
    couchdb: /^undefined$/,
    why: 'a crashing job says so in its document, with the reason and the next try: admin pages show nothing else',
  },
  {
    id: CRASHING,
    at: /(\.document\._rev|\.body\.rev)$/,
    why: 'so the document has a revision more',
  },
  {
    id: CRASHING,
    at: /\.job\.info(\.\w+)?$/,
    couchrep: /error|undefined|could not|failed|unauthorized/,
    why: 'a crashing job tells the reason here too',
  },

  // Words.
  {
    at: /\.(docs\.info\.error|job\.history)$/,
    couchdb: /\{\w+,|forbidden: http/,
    couchrep: /^[^{}<>]*$/,
    why: 'a sentence, with what the server said, instead of an Erlang term',
  },
  {
    at: /^\d+\.requests\.\d+\.body\.reason$/,
    couchdb: /^\{(error|throw),/,
    couchrep: /^[^{}<>]*$/,
    why: 'a sentence instead of an Erlang term',
  },
  { id: 'bad-scheme', at: /\.body\.reason$/, why: 'CouchDB takes ftp:// for a name of its own' },

  // What is taken.
  { id: 'local-names', at: /./, why: 'names work: they are databases of this server' },
  {
    id: ['claims-completed', 'claims-nonsense', 'claims-id', 'states-by-hand'],
    at: /./,
    why: 'only the replicator writes _replication_ fields: they are refused, so nothing starts and nothing lies',
  },
  { id: 'no-workers', at: /./, why: 'CouchDB takes it and hangs; it is refused' },

  // Duplicates.
  { id: 'duplicate', at: /^2\.seen\.1\./, why: 'the second takes over when the first goes; in CouchDB it stays failed' },

  // What is counted.
  {
    id: 'doc-ids',
    at: /\.(revisions_checked|missing_revisions_found|bulk_get_attempts|checkpointed_source_seq)$/,
    why: 'doc_ids are fetched directly, without the feed and without checkpoints',
  },
  {
    id: 'completed-again',
    at: /\._replication_stats\.|\.docs\.info\./,
    couchdb: /^4$/,
    couchrep: /^1$/,
    why: "CouchDB adds up what checkpoints tell of earlier runs; here they are this run's own",
  },

  // People.
  {
    id: 'own-replicator',
    at: /^1\.requests\.1\.body\.target\.url$/,
    why: "CouchDB shows others the password in an endpoint's url where it is an object",
  },
  {
    id: 'own-replicator',
    at: /^1\.requests\.[34]\./,
    why: 'lists are for admins of a replicator database: CouchDB shows members no credentials there, but lets selectors guess them',
  },
  { id: 'owners', at: /^1\.requests\.1\./, why: "CouchDB lets any member delete another one's document" },
  { id: 'owners', at: /rev$|request$|source_seq$/, why: 'so the job and its document are still the first ones' },
  { id: 'roles', at: /\.job\.user$/, why: 'CouchDB believes what user_ctx claims; rights are those of the owner' },
];
