// Two servers' observations side by side: states and histories of all documents, and every field that differs.

import { isDeepStrictEqual } from 'node:util';

import { expected } from './expected.mjs';

/**
 * What differs, `{ id, at, couchdb, couchrep, why }`: what a rule explains, and what nobody thought of; and the rules
 * that nothing needed.
 */
export function differences(couchdb, couchrep) {
  const used = new Set();
  const all = couchdb.flatMap(({ id, stages }) => {
    const other = couchrep.find((one) => one.id === id)?.stages;
    const differing = other ? [...differ(stages, other)] : [{ at: 'stages', couchdb: stages }];
    return differing.map((difference) => {
      const rule = expected.find((rule) => covers(rule, { id, ...difference }));
      used.add(rule);
      return { id, ...difference, why: rule?.why };
    });
  });
  return {
    explained: all.filter(({ why }) => why),
    unexplained: all.filter(({ why }) => !why),
    unused: expected.filter((rule) => !used.has(rule)),
  };
}

function covers(rule, { id, at, couchdb, couchrep }) {
  const ids = [rule.id ?? []].flat();
  const text = (value) => (typeof value === 'string' ? value : String(JSON.stringify(value)));
  const says = (words, value) => words === undefined || words.test(text(value));
  return (
    (ids.length === 0 || ids.includes(id)) &&
    rule.at.test(at) &&
    says(rule.couchdb, couchdb) &&
    says(rule.couchrep, couchrep)
  );
}

/** Every field that differs, by its path: `0.docs.state` is that of the first stage. */
function* differ(couchdb, couchrep, at = '') {
  if (isDeepStrictEqual(couchdb, couchrep)) return;
  const isFields = (value) => value !== null && typeof value === 'object';
  // A list of words is one thing to look at: a history, ids.
  const isWords = (value) => Array.isArray(value) && value.every((item) => typeof item === 'string');
  const goesOn = isFields(couchdb) && isFields(couchrep) && !(isWords(couchdb) && isWords(couchrep));
  if (!goesOn) {
    yield { at: at.slice(1), couchdb, couchrep };
    return;
  }
  for (const name of new Set([...Object.keys(couchdb), ...Object.keys(couchrep)])) {
    const single = name === '0' && at.endsWith('.seen') && couchdb.length <= 1 && couchrep.length <= 1;
    const step = name === 'seen' ? '.seen' : single ? '' : `.${name}`;
    yield* differ(couchdb[name], couchrep[name], at + step);
  }
}

/** States, what they say, and histories, stage by stage. */
export function sideBySide(couchdb, couchrep) {
  const rows = couchdb.flatMap(({ id, about, stages }) => {
    const other = couchrep.find((one) => one.id === id)?.stages ?? [];
    return stages.map((stage, index) => ({
      document: index === 0 ? `**${id}**: ${about}` : '',
      couchdb: inWords(stage),
      couchrep: inWords(other[index]),
    }));
  });
  return markdown(['document', 'couchdb', 'couchrep'], rows);
}

function inWords(stage) {
  if (!stage) return '';
  const asked = stage.requests.map(({ request, status, body }) => {
    const [method] = request.split(' ');
    return status < 400 ? `${method} ${status}` : `${method} ${status} ${body.error}`;
  });
  const seen = stage.seen.map(({ document, docs, job }) => {
    const state = docs.state ?? `${docs.status}`;
    const written = document._replication_state ? `; in the document: ${document._replication_state}` : '';
    const history = job ? `; ${job.history.map((event) => event.split(':')[0]).join(' < ')}` : '';
    return `${state}${written}${history}`;
  });
  return [asked.join(', '), ...seen].filter(Boolean).join('<br>');
}

/** The differences as a table, one by one. */
export function tableOf(differing) {
  const rows = differing.map(({ id, at, couchdb, couchrep, why }) => ({
    document: id,
    field: at,
    couchdb: short(couchdb),
    couchrep: short(couchrep),
    why: why ?? '**unexplained**',
  }));
  return markdown(['document', 'field', 'couchdb', 'couchrep', 'why'], rows);
}

/** The reasons as a table, each with the documents and fields that it explains, and one of the differences. */
export function reasons(differing) {
  const rows = Object.values(grouped(differing)).map((group) => {
    const [{ why, couchdb, couchrep }] = group;
    const ids = [...new Set(group.map(({ id }) => id))];
    const fields = [...new Set(group.map(({ at }) => at.replaceAll(/(^|\.)(\d+|seen|requests)(?=\.|$)/g, '').slice(1)))];
    return {
      why,
      documents: ids.length > 12 ? `${ids.length} documents` : ids.join(', '),
      fields: fields.length > 6 ? `${fields.length} fields` : fields.join(', '),
      couchdb: short(couchdb),
      couchrep: short(couchrep),
    };
  });
  return markdown(['why', 'documents', 'fields', 'couchdb', 'couchrep'], rows);
}

function short(value) {
  const text = value === undefined ? '–' : JSON.stringify(value);
  return text.length > 160 ? `${text.slice(0, 159)}…` : text;
}

function markdown(columns, rows) {
  const line = (cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  const cells = rows.map((row) => columns.map((name) => row[name]));
  return [columns, columns.map(() => '---'), ...cells].map(line).join('\n');
}

/** By reason; Node 20 has no `Object.groupBy`. */
function grouped(differing) {
  const groups = {};
  for (const one of differing) (groups[one.why] ??= []).push(one);
  return groups;
}
