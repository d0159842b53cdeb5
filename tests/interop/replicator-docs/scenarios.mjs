// Replicator documents, each with what happens to it. The ids order the side by side.

const FILTERS = {
  _id: '_design/garden',
  filters: {
    fruit: 'function (doc, req) { return doc.fruit === (req.query.fruit === "yes"); }',
    throws: 'function (doc, req) { throw "no fruit"; }',
  },
};

/** A document from source to target, with further fields, and what came of it. */
const one = (id, about, more = {}) => ({
  id,
  about,
  async run(place) {
    await place.databases();
    const fields = typeof more === 'function' ? more(place) : more;
    await place.put({ source: place.source, target: place.target, ...fields });
    await place.settle();
  },
});

/** The same, with a design document that filters in the source. */
const filtered = (id, about, more) => ({
  id,
  about,
  async run(place) {
    await place.databases();
    await place.fill('source', [FILTERS]);
    await place.put({ source: place.source, target: place.target, ...more });
    await place.settle();
  },
});

const good = [
  one('one-shot', 'a one-shot from one database to another'),
  {
    id: 'continuous',
    about: 'a continuous one; later another document is written at the source',
    async run(place) {
      await place.databases();
      await place.put({ source: place.source, target: place.target, continuous: true });
      await place.settle();
      await place.fill('source', [{ _id: 'dill' }]);
      await place.settle({ until: ({ arrived }) => arrived.includes('dill') });
    },
  },
  {
    id: 'create-target',
    about: 'create_target, and no target yet',
    async run(place) {
      await place.database('source', [{ _id: 'apple' }]);
      await place.put({ source: place.source, target: place.target, create_target: true });
      await place.settle();
    },
  },
  one('doc-ids', 'doc_ids, one of which is not there', { doc_ids: ['apple', 'nosuch'] }),
  one('selector', 'a selector', { selector: { fruit: true } }),
  filtered('filter', 'a filter in a design document, with query_params', {
    filter: 'garden/fruit',
    query_params: { fruit: 'yes' },
    continuous: true,
  }),
  one('headers', 'endpoints as objects: headers at the source, auth at the target', (place) => {
    const { username, password, origin } = place.bench.data;
    const basic = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
    return {
      source: { url: origin + new URL(place.source).pathname, headers: { Authorization: basic, 'X-Kitchen': 'open' } },
      target: { url: origin + new URL(place.target).pathname, auth: { basic: { username, password } } },
    };
  }),
  {
    id: 'odd/id & ü',
    about: 'ids that must be encoded, and attachments, also of the document itself',
    async run(place) {
      const note = { 'a note.txt': { content_type: 'text/plain', data: Buffer.from('salt').toString('base64') } };
      await place.database('source', [
        { _id: 'with/slash', _attachments: note },
        { _id: 'ü & +', n: 1 },
        { _id: 'per%2Fcent' },
      ]);
      await place.database('target', []);
      await place.put({ source: place.source, target: place.target, _attachments: note });
      await place.settle();
    },
  },
  one('no-checkpoints', 'use_checkpoints: false', { use_checkpoints: false }),
  {
    id: 'winners',
    about: 'winning_revs_only, with a conflict at the source',
    async run(place) {
      await place.databases();
      const path = (digit) => ({ start: 1, ids: [digit.repeat(32)] });
      const leaf = (digit) => ({ _id: 'both', _revisions: path(digit), _rev: `1-${digit.repeat(32)}` });
      await place.fill('source', ['a', 'b'].map(leaf), { new_edits: false });
      await place.put({ source: place.source, target: place.target, winning_revs_only: true });
      await place.settle();
    },
  },
  {
    id: 'refusing-target',
    about: "the target's validate_doc_update refuses a document",
    async run(place) {
      await place.databases();
      const refuse = 'function (doc) { if (doc._id === "bean") throw { forbidden: "no beans" }; }';
      await place.fill('target', [{ _id: '_design/rules', validate_doc_update: refuse }]);
      await place.put({ source: place.source, target: place.target });
      await place.settle();
    },
  },
  one('local-names', 'names instead of URLs', ({ name }) => ({ source: `${name}-source`, target: `${name}-target` })),
];

const failing = [
  filtered('filter-missing', 'a filter that its design document lacks', { filter: 'garden/nosuch' }),
  filtered('design-missing', 'a filter of a design document that is not there', { filter: 'nosuch/fruit' }),
  filtered('filter-broken', 'a filter that throws', { filter: 'garden/throws' }),
  {
    id: 'source-missing',
    about: 'the source is not there; later it is',
    async run(place) {
      await place.database('target', []);
      await place.put({ source: place.source, target: place.target });
      await place.settle();
      await place.database('source', [{ _id: 'apple' }]);
      await place.settle({ until: ({ docs }) => docs.state === 'completed', limit: place.bench.limits.stage * 3 });
    },
  },
  {
    id: 'target-missing',
    about: 'the target is not there, continuous',
    async run(place) {
      await place.database('source', [{ _id: 'apple' }]);
      await place.put({ source: place.source, target: place.target, continuous: true });
      await place.settle();
    },
  },
  {
    id: 'source-password',
    about: 'the source refuses the password',
    async run(place) {
      await place.databases();
      const ann = await place.user('ann');
      await place.put({ source: place.at('source', { ...ann, password: 'wrong' }), target: place.target });
      await place.settle();
    },
  },
  {
    id: 'target-password',
    about: 'the target refuses the password, continuous',
    async run(place) {
      await place.databases();
      const ann = await place.user('ann');
      const target = place.at('target', { ...ann, password: 'wrong' });
      await place.put({ source: place.source, target, continuous: true });
      await place.settle();
    },
  },
  {
    id: 'source-forbidden',
    about: 'the source lets this user not in, whose password is right',
    async run(place) {
      await place.databases();
      await place.put({ source: place.at('source', await place.user('ann')), target: place.target });
      await place.settle();
    },
  },
  one('refused', 'nobody listens at the source', (place) => ({ source: `http://${place.bench.refused}/db` })),
  one('unknown-host', 'a host that no name server knows', { target: 'http://nosuch.invalid/db' }),
];

const malformed = [
  one('source-number', 'source: 7', { source: 7 }),
  one('no-source', 'no source', { source: undefined }),
  one('no-target', 'no target', { target: undefined }),
  one('empty', 'an object without a URL as the source', { source: {} }),
  one('bad-url', 'a URL with a port that is none', { source: 'http://host:port/db' }),
  one('bad-scheme', 'a URL that is not http', { source: 'ftp://host/db' }),
  one('continuous-text', 'continuous: "yes"', { continuous: 'yes' }),
  one('doc-ids-text', 'doc_ids that are none', { doc_ids: 'apple' }),
  one('doc-ids-and-filter', 'doc_ids and a filter', { doc_ids: ['apple'], filter: 'garden/fruit' }),
  one('filter-name', 'a filter without a slash', { filter: 'fruit' }),
  one('selector-text', 'a selector that is none', { selector: 'fruit' }),
  one('selector-operator', 'a selector with an operator that nobody knows', { selector: { fruit: { $near: 1 } } }),
  filtered('query-params', 'query_params that are no strings', { filter: 'garden/fruit', query_params: { n: 7 } }),
  one('no-workers', 'worker_processes: 0', { worker_processes: 0 }),
  one('timeout-text', 'connection_timeout: "soon"', { connection_timeout: 'soon' }),
];

const changed = [
  {
    id: 'duplicate',
    about: 'two documents with one replication id; then the first is deleted',
    async run(place) {
      await place.databases();
      const ids = [place.id, `${place.id}-second`];
      const doc = { source: place.source, target: place.target, continuous: true };
      await place.put(doc);
      await place.settle();
      await place.put(doc, { id: ids[1] });
      await place.settle({ ids });
      await place.remove();
      await place.settle({ ids });
    },
  },
  {
    id: 'edited',
    about: 'a running one gets a selector and another target',
    async run(place) {
      await place.databases();
      await place.database('other', []);
      await place.put({ source: place.source, target: place.target, continuous: true });
      await place.settle();
      await place.put({ target: place.at('other'), selector: { fruit: true } }, { keep: true });
      await place.settle();
    },
  },
  {
    id: 'comment',
    about: 'a running one gets a field without a meaning',
    async run(place) {
      await place.databases();
      await place.put({ source: place.source, target: place.target, continuous: true });
      await place.settle();
      await place.put({ comment: 'for the kitchen' }, { keep: true });
      await place.settle();
    },
  },
  {
    id: 'broken-later',
    about: 'a running one is edited into one that has no source',
    async run(place) {
      await place.databases();
      const doc = { source: place.source, target: place.target, continuous: true };
      await place.put(doc);
      await place.settle();
      await place.put({ target: place.target, continuous: true });
      await place.settle();
    },
  },
  {
    id: 'mended',
    about: 'a failing one is edited into a good one',
    async run(place) {
      await place.databases();
      await place.put({ source: place.at('nosuch'), target: place.target });
      await place.settle();
      await place.put({ source: place.source }, { keep: true });
      await place.settle({ until: ({ docs }) => docs.state === 'completed' });
    },
  },
  {
    id: 'deleted',
    about: 'a running one is deleted',
    async run(place) {
      await place.databases();
      await place.put({ source: place.source, target: place.target, continuous: true });
      await place.settle();
      await place.remove();
      await place.settle();
    },
  },
  {
    id: 'database-deleted',
    about: 'the database of a running one is deleted',
    async run(place) {
      await place.databases();
      await place.ownReplicator();
      await place.put({ source: place.source, target: place.target, continuous: true });
      await place.settle();
      await place.request('DELETE', `/${place.replicator}`);
      await place.settle();
    },
  },
  {
    id: 'completed-edited',
    about: 'a completed one is edited, its states kept',
    async run(place) {
      await place.databases();
      await place.put({ source: place.source, target: place.target });
      await place.settle();
      await place.fill('source', [{ _id: 'dill' }]);
      await place.put({ comment: 'again' }, { keep: true });
      await place.settle();
    },
  },
  {
    id: 'completed-again',
    about: 'a completed one is written again without its states',
    async run(place) {
      await place.databases();
      const doc = { source: place.source, target: place.target };
      await place.put(doc);
      await place.settle();
      await place.fill('source', [{ _id: 'dill' }]);
      await place.put(doc);
      await place.settle({ until: ({ arrived }) => arrived.includes('dill') });
    },
  },
  one('claims-completed', 'a new one that says it is completed', { _replication_state: 'completed' }),
  one('claims-nonsense', 'a new one with a state that nobody knows', { _replication_state: 'dancing' }),
  one('claims-mood', 'a new one with a field of the replicator that nobody knows', { _replication_mood: 'good' }),
  one('cancel', 'cancel: true in a document', { cancel: true }),
  one('claims-id', '_replication_id of another replication', { _replication_id: '0123456789abcdef0123456789abcdef' }),
];

const people = [
  {
    id: 'own-replicator',
    about: "two people's own replicator database: one writes, the other and an admin read",
    async run(place) {
      await place.databases();
      const [ann, bob, eve] = [await place.user('ann'), await place.user('bob'), await place.user('eve')];
      await place.ownReplicator(ann, bob);
      const target = { url: place.target, headers: { 'X-Secret': 'salt' } };
      await place.put({ source: place.source, target, continuous: true }, { as: ann });
      await place.settle();
      for (const reader of [ann, bob, eve]) await place.request('GET', place.path(), undefined, reader);
      await place.request('GET', `/${place.replicator}/_all_docs?include_docs=true`, undefined, bob);
      await place.request('GET', `/${place.replicator}/_changes?include_docs=true`, undefined, bob);
      await place.request('GET', place.entry(), undefined, ann);
      await place.request('GET', '/_scheduler/jobs', undefined, ann);
      await place.settle();
    },
  },
  {
    id: 'owners',
    about: "people write in another one's name, and into his document; so does an admin",
    async run(place) {
      await place.databases();
      const [ann, bob] = [await place.user('ann'), await place.user('bob')];
      await place.ownReplicator(ann, bob);
      const doc = { source: place.source, target: place.target, continuous: true };
      await place.put({ ...doc, owner: ann.name }, { as: bob });
      await place.put({ ...doc, owner: ann.name });
      await place.settle();
      await place.put({ ...doc, owner: ann.name, comment: 'mine' }, { as: bob });
      await place.remove({ as: bob });
      await place.put({ ...doc, owner: bob.name, comment: 'yours' }, { as: ann });
      await place.put({ ...doc, comment: 'mine' }, { as: ann });
      await place.settle();
      await place.remove({ as: ann });
      await place.settle();
    },
  },
  {
    id: 'states-by-hand',
    about: 'a person writes states into his own document',
    async run(place) {
      await place.databases();
      const ann = await place.user('ann');
      await place.ownReplicator(ann);
      const doc = { source: place.source, target: place.target, continuous: true };
      await place.put({ ...doc, _replication_state: 'completed' }, { as: ann });
      await place.settle();
      await place.put({ ...doc, _replication_state: 'failed', _replication_state_reason: 'why not' });
      await place.settle();
    },
  },
  {
    id: 'roles',
    about: 'a user_ctx that claims to be an admin',
    async run(place) {
      await place.databases();
      const ann = await place.user('ann');
      await place.ownReplicator(ann);
      const user_ctx = { name: 'admin', roles: ['_admin'] };
      await place.put({ source: place.at('source', ann), target: place.target, user_ctx }, { as: ann });
      await place.settle();
    },
  },
  {
    id: 'strangers',
    about: 'somebody who may not use _replicator, and nobody in particular',
    async run(place) {
      await place.databases();
      const ann = await place.user('ann');
      await place.put({ source: place.source, target: place.target }, { as: ann });
      await place.request('GET', '/_replicator/_all_docs', undefined, ann);
      await place.request('GET', '/_scheduler/docs', undefined, ann);
      await place.settle();
    },
  },
];

/** All of them. */
export const scenarios = [...good, ...failing, ...malformed, ...changed, ...people];
