// What was seen, in words that are the same at every run: no times, ports, passwords, ids that are drawn.

/** Texts that differ at every run, and what stands for them. */
const PATTERNS = [
  [/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, 'TIME'],
  [/<\d+\.\d+\.\d+>/g, 'PID'],
  [/\b\d+-g1[\w-]{20,}/g, 'SEQ'],
];

/** Whether a seq is that of an empty database. */
export const isStart = (seq) => /^0(-|$)/.test(seq);

/** The words of one scenario. */
export class Words {
  #replacements;
  #numbers = {};

  constructor({ server, data, prefix, refused }) {
    this.#replacements = [
      ...[server, data].flatMap((url) => [
        [`//${url.username}:${url.password}@${url.host}`, '//admin:PASSWORD@HOST'],
        [url.host, 'HOST'],
        [`Basic ${Buffer.from(`${url.username}:${url.password}`).toString('base64')}`, 'Basic PASSWORD'],
      ]),
      [refused, 'REFUSED'],
      [prefix, ''],
    ];
  }

  of(value, name) {
    if (name === 'node') return 'NODE';
    if (name === 'password') return 'PASSWORD';
    if (name === 'ref') return 'REF';
    if (name?.endsWith('_seq')) return isStart(value) ? 0 : 'SEQ';
    // How often it failed depends on when it was looked at.
    if (name === 'error_count') return value > 0 ? 'some' : 0;
    // CouchDB tells that none are left by 0 or null, by how long the feed was open.
    if (name === 'changes_pending' && !value) return 'none';
    if (Array.isArray(value)) return name === 'history' ? this.#history(value) : value.map((item) => this.of(item));
    if (typeof value === 'string') return this.#text(value);
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([name, value]) => [this.#text(name), this.of(value, name)]));
  }

  #text(text) {
    for (const [from, to] of this.#replacements) text = text.replaceAll(from, to);
    for (const [from, to] of PATTERNS) text = text.replace(from, to);
    // Others of the same generation tell that somebody is shown another revision.
    text = text.replace(/\b(\d+-)([0-9a-f]{32})\b/g, (_, start, hash) => `${start}REV${this.#number(start, hash)}`);
    return text.replace(/\b[0-9a-f]{32}\b/g, (hash) => `ID${this.#number('id', hash)}`);
  }

  /** The first hash of a kind is 1, the next one 2. */
  #number(kind, hash) {
    const numbers = (this.#numbers[kind] ??= new Map());
    if (!numbers.has(hash)) numbers.set(hash, numbers.size + 1);
    return numbers.get(hash);
  }

  /** Events, newest first; how often it started and crashed again depends on when it was looked at. */
  #history(events) {
    const words = events.map(({ type, reason }) => (reason === undefined ? type : `${type}: ${this.#text(reason)}`));
    for (let index = 0; index + 3 < words.length; ) {
      const again = words[index] === words[index + 2] && words[index + 1] === words[index + 3];
      if (again) words.splice(index, 2);
      else index += 1;
    }
    return words;
  }
}
