// Documents that are at their end: failed for good, or completed. They have no job, so the list of jobs hasn't got them.
//
// Only a server's admin may list them. Counting them costs the server a look at each, so they are asked for when the
// page opens, every five minutes while it is looked at, after an act, and when somebody opens their list.

import { ask } from './server.js';
import { PAGE } from './jobs.js';

const KEPT_MS = 5 * 60_000;

export class Ended {
  // changed({failed, completed, docs}) gets the counts, and the documents of the list that is shown.
  constructor(changed) {
    this.changed = changed;
    this.forget();
  }

  forget() {
    this.counted = 0;
    this.shown = null;
    this.known = {};
  }

  stale() { this.counted = 0; this.shown = null; }

  // Called after each answer of the poll, and mostly does nothing. `jobs`: how many there are; one that is gone may have come to its end.
  want(state, page, jobs) {
    if (jobs < this.jobs) this.stale();
    this.jobs = jobs;
    if (Date.now() - this.counted > KEPT_MS) {
      this.counted = Date.now();
      this.shown = null;
      for (const one of ['failed', 'completed']) if (one !== state) this.load(one, 1, 0);
    }
    const shown = state && `${state} ${page}`;
    if (shown === this.shown) return;
    this.shown = shown;
    if (!state) return;
    if (this.known.of !== shown) this.tell({ docs: null, of: shown, error: null });
    this.load(state, PAGE, (page - 1) * PAGE, shown);
  }

  async load(state, limit, skip, shown) {
    try {
      const { total_rows, docs } = await ask('GET', `../_scheduler/docs?states=${state}&limit=${limit}&skip=${skip}`);
      if (shown && shown !== this.shown) return;
      this.tell({ [state]: total_rows, ...(shown ? { docs: docs.map(rowOf), of: shown, error: null } : {}) });
    } catch (error) {
      this.tell({ [state]: null, ...(shown && shown === this.shown ? { error: error.message } : {}) });
    }
  }

  tell(known) {
    this.known = { ...this.known, ...known };
    this.changed(this.known);
  }
}

// An entry of `_scheduler/docs` as a row of the list of jobs.
export function rowOf(doc) {
  const info = doc.info ?? {};
  return {
    id: doc.id ?? null, database: doc.database, doc_id: doc.doc_id, source: doc.source, target: doc.target, owner: doc.owner ?? null,
    state: doc.state, reason: info.error ?? null, since: doc.last_updated ?? null, started: doc.start_time, error_count: doc.error_count ?? 0,
    docs_read: info.docs_read ?? null, docs_written: info.docs_written ?? null, doc_write_failures: info.doc_write_failures ?? null,
    changes_pending: info.changes_pending ?? null, ended: ['failed', 'completed'].includes(doc.state),
  };
}
