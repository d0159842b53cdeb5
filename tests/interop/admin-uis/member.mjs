// Somebody who may read one database, and what others have beside it.

import { asked, fresh } from './servers.mjs';

/** Makes a user `login`, `own`, which he is a member of, and a job of an admin between databases that are `hidden` from him. */
export async function member({ url, admin }, remote) {
  const [name, own, hidden, copy] = [fresh('ann'), fresh('own'), fresh('hidden'), fresh('hidden-copy')];
  const ask = (method, path, body) => asked(method, url + path, admin, body);
  const user = `/_users/org.couchdb.user:${name}`;
  await ask('PUT', user, { name, password: 'pw', roles: [], type: 'user' });
  for (const db of [own, hidden]) await ask('PUT', `/${db}`);
  await ask('PUT', `/${own}/_security`, { admins: { names: [], roles: [] }, members: { names: [name], roles: [] } });
  await ask('PUT', `/${own}/soup`, { serves: 4 });
  await remote.makeDatabase(copy);
  const at = (server, login, db) => Object.assign(new URL(`${server}/${db}`), { username: login.name, password: login.password }).href;
  const job = { source: at(url, admin, hidden), target: at(remote.url, remote.login, copy), continuous: true };
  await ask('PUT', `/_replicator/${hidden}-job`, job);
  return {
    login: { name, password: 'pw' },
    own,
    hidden,
    copy,
    /** Takes all of it away. */
    end: async () => {
      const gone = async (path) => ask('DELETE', `${path}?rev=${(await ask('GET', path))._rev}`);
      await gone(`/_replicator/${hidden}-job`);
      await gone(user);
      for (const db of [own, hidden]) await ask('DELETE', `/${db}`);
    },
  };
}

/** What UIs ask for lists of databases and jobs. */
export const LISTS = [
  '/_all_dbs', '/_dbs_info', '/_db_updates', '/_active_tasks', '/_scheduler/jobs', '/_scheduler/docs', '/_scheduler/docs/_replicator',
  '/_replicator/_all_docs?include_docs=true', '/_replicator/_changes?include_docs=true', '/_metrics', '/_node/_local/_prometheus',
];
