// Keeps the page live: takes what has changed from ./;live and changes that
// and nothing else, so that scroll, selection and focus stay where they are.
// The page is whole without it.
'use strict';

(() => {
  const themes = ['auto', 'light', 'dark'];

  // At once, before anything is drawn.
  let theme = 'auto';
  try { theme = localStorage.getItem('tidings-theme') || 'auto'; } catch { /* not kept, then */ }
  wear(theme);
  addEventListener('DOMContentLoaded', start);

  function wear(name) {
    theme = themes.includes(name) ? name : 'auto';
    if (theme === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }

  function start() {
    const find = (selector, root = document) => root.querySelector(selector);
    const all = (selector, root = document) => [...root.querySelectorAll(selector)];
    const { body } = document;
    const asked = decodeURI(location.pathname + location.search);
    const hides = { down: asked.includes(';up'), maint: asked.includes(';no-maint') };
    const partial = body.classList.contains('partial');
    let scene = body.dataset.scene;
    let skew = Date.now() - Number(body.dataset.now);

    // ---- what stands on the page -------------------------------------------

    const tables = new Map();
    for (const rows of all('[data-table]')) {
      const keys = new Map(all('[data-k]', rows).map((row) => [row.dataset.k, row]));
      tables.set(rows.dataset.table, { rows, keys, order: [...keys.keys()], sort: null });
    }
    const servers = tables.get(find('#servers .proxy')?.id);
    const heads = all('#servers tr.columns th').map((head) => head.textContent.trim());
    const column = (name) => heads.lastIndexOf(name) + 1;

    // ---- values -------------------------------------------------------------

    const template = document.createElement('template');
    const parsed = (html) => { template.innerHTML = html; return template.content; };

    function grouped(figure) {
      const [first, ...rest] = String(figure).replace(/\B(?=(\d{3})+$)/g, ' ').split(' ');
      if (figure === 0) return '<span class="zero">0</span>';
      return first + rest.map((three) => `<span class="group">${three}</span>`).join('');
    }

    function age(at) {
      const seconds = Math.max(0, Math.floor((Date.now() - skew) / 1000) - at);
      const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
      if (days) return `${days}d${hours % 24}h`;
      if (hours) return `${hours}h${minutes % 60}m`;
      if (minutes) return `${minutes}m${seconds % 60}s`;
      return `${seconds}s`;
    }

    function markup(value) {
      if (value === null) return '';
      if (typeof value === 'number') return grouped(value);
      if (typeof value === 'string') return value;
      return `<time data-at="${value.at}">${age(value.at)}</time>${value.after}`;
    }

    // Makes one element's content that of another with the fewest changes.
    function morph(old, fresh) {
      let [a, b] = [old.firstChild, fresh.firstChild];
      while (b) {
        const next = b.nextSibling;
        const after = a?.nextSibling;
        if (!a) old.append(b);
        else if (a.nodeName !== b.nodeName) a.replaceWith(b);
        else if (a.nodeType === Node.TEXT_NODE) { if (a.data !== b.data) a.data = b.data; }
        else { dress(a, b); morph(a, b); }
        [a, b] = [after, next];
      }
      while (a) { const after = a.nextSibling; a.remove(); a = after; }
    }

    function dress(old, fresh) {
      for (const { name } of [...old.attributes]) {
        if (!fresh.hasAttribute(name)) old.removeAttribute(name);
      }
      for (const { name, value } of fresh.attributes) {
        if (old.getAttribute(name) !== value) old.setAttribute(name, value);
      }
    }

    // ---- changes ------------------------------------------------------------

    function apply(patch) {
      skew = Date.now() - patch.now;
      for (const [name, value] of Object.entries(patch.spots ?? {})) {
        for (const spot of all(`[data-spot="${name}"]`)) morph(spot, parsed(markup(value)));
      }
      for (const [id, changes] of Object.entries(patch.tables ?? {})) {
        const table = tables.get(id);
        if (table) change(table, changes);
      }
    }

    function change(table, { order, new: fresh = {}, rows = {} }) {
      for (const [key, html] of Object.entries(fresh)) {
        const row = parsed(html).firstElementChild;
        const old = table.keys.get(key);
        if (old) { row.hidden = old.hidden; dress(old, row); morph(old, row); }
        else table.keys.set(key, row);
        list(table, old ?? row);
      }
      for (const [key, { class: colour, cells = {}, tips = {} }] of Object.entries(rows)) {
        const row = table.keys.get(key);
        if (!row) continue;
        if (colour) row.className = colour;
        for (const [place, value] of Object.entries(cells)) {
          const cell = row.children[place];
          // One text for another: the node stays.
          const [text] = cell.childNodes;
          const plain = typeof value === 'number' && value > 0 && value < 1000;
          if (plain && cell.childNodes.length === 1 && text.nodeType === Node.TEXT_NODE) {
            text.data = value;
          } else morph(cell, parsed(markup(value)));
        }
        for (const [place, tip] of Object.entries(tips)) {
          if (tip === null) row.children[place].removeAttribute('title');
          else row.children[place].title = tip;
        }
        if (colour || column('Status') in cells) list(table, row);
      }
      if (order) {
        table.order = order;
        const there = new Set(order);
        for (const [key, row] of table.keys) {
          if (!there.has(key)) { row.remove(); table.keys.delete(key); }
        }
        arrange(table);
      }
    }

    // Puts the rows in their order; those that are in place stay untouched.
    function arrange(table) {
      const rows = table.order.map((key) => table.keys.get(key)).filter(Boolean);
      if (table.sort) {
        const last = rows.pop();
        const { place, down } = table.sort;
        const value = new Map(rows.map((row) => [row, weight(row.children[place])]));
        rows.sort((a, b) => (down ? -1 : 1) * compare(value.get(a), value.get(b)));
        rows.push(last);
      }
      let at = table.rows.firstElementChild;
      for (const row of rows) {
        if (row === at) at = at.nextElementSibling;
        else table.rows.insertBefore(row, at);
      }
    }

    function weight(cell) {
      const time = find('time[data-at]', cell);
      if (time) return -Number(time.dataset.at);
      const text = cell.textContent.trim();
      const figure = parseFloat(text);
      return Number.isNaN(figure) ? text : figure;
    }

    function compare(a, b) {
      if (typeof a === 'number' && typeof b === 'number') return a - b;
      return String(a).localeCompare(String(b), 'en', { numeric: true });
    }

    // What the user holds is still held after a change.
    function keeping(work) {
      const held = document.getSelection();
      const { anchorNode, anchorOffset, focusNode, focusOffset } = held;
      const was = held.toString() && [anchorNode, anchorOffset, focusNode, focusOffset];
      const focus = document.activeElement;
      work();
      if (focus !== document.activeElement && focus?.isConnected) {
        focus.focus({ preventScroll: true });
      }
      if (!was || !anchorNode.isConnected || !focusNode.isConnected) return;
      const within = (node, offset) => Math.min(offset, node.length ?? node.childNodes.length);
      if (held.anchorOffset !== anchorOffset || held.focusOffset !== focusOffset
        || held.anchorNode !== anchorNode || held.focusNode !== focusNode) {
        held.setBaseAndExtent(anchorNode, within(anchorNode, anchorOffset),
          focusNode, within(focusNode, focusOffset));
      }
    }

    // ---- the stream ---------------------------------------------------------

    const light = find('#live');
    let stream = null;
    let again = 0;
    let paused = asked.includes(';norefresh');

    function shine(state, words) {
      light.hidden = false;
      light.className = state;
      if (light.textContent !== words) light.textContent = words;
    }

    function connect() {
      clearTimeout(again);
      stream?.close();
      stream = null;
      if (paused) { shine('paused', 'paused'); return; }
      if (document.hidden) return;
      // A page that leaves rows out has to be told of them first.
      const since = partial && !connect.whole ? '' : `;since=${scene}`;
      stream = new EventSource(`./;live${since}`);
      stream.onopen = () => shine('live', 'live');
      stream.onmessage = ({ data, lastEventId }) => {
        if (!lastEventId.startsWith(body.dataset.build)) { location.reload(); return; }
        connect.whole = true;
        scene = lastEventId;
        keeping(() => apply(JSON.parse(data)));
      };
      stream.onerror = () => {
        shine('lost', 'reconnecting');
        if (stream.readyState === EventSource.CLOSED) again = setTimeout(connect, 3000);
      };
    }

    function pause() { paused = !paused; connect(); }

    document.addEventListener('visibilitychange', () => {
      if (document.hidden) { clearTimeout(again); stream?.close(); stream = null; }
      else connect();
    });

    setInterval(() => {
      if (paused || document.hidden) return;
      keeping(() => {
        for (const time of all('time[data-at]')) {
          const words = age(Number(time.dataset.at));
          if (time.textContent !== words) time.firstChild.data = words;
        }
      });
    }, 1000);

    setInterval(() => {
      const busy = servers?.rows.matches(':hover, :focus-within');
      if (servers?.sort && !busy && !paused) keeping(() => arrange(servers));
    }, 5000);

    // ---- filter and sort ----------------------------------------------------

    const filter = find('#filter');

    function list(table, row) {
      if (table !== servers || !row.id || !row.querySelector('.addr, .from')) return;
      const colour = row.className;
      const maint = colour === 'maintain';
      const out = maint || colour === 'active_down' || colour === 'active_going_up';
      const words = filter.value.trim().toLowerCase();
      const text = () => [
        find('a', row).textContent,
        ...['Status', 'LastChk', 'From'].map((name) => row.children[column(name)].textContent),
      ].join(' ').toLowerCase();
      const hidden = (hides.down && out) || (hides.maint && maint)
        || (words !== '' && !text().includes(words));
      if (row.hidden !== hidden) row.hidden = hidden;
    }

    function listAll() {
      for (const row of servers?.keys.values() ?? []) list(servers, row);
    }

    filter?.addEventListener('input', () => {
      // A page that was loaded with a filter lacks the rows it leaves out.
      if (partial && !connect.whole && !paused) connect();
      listAll();
    });

    for (const head of all('#servers tr.columns th')) {
      const button = document.createElement('button');
      button.type = 'button';
      button.append(...head.childNodes);
      head.append(button);
      const place = all('#servers tr.columns th').indexOf(head) + 1;
      button.addEventListener('click', () => {
        const now = servers.sort?.place === place ? servers.sort : null;
        servers.sort = !now ? { place, down: true } : now.down ? { place, down: false } : null;
        for (const other of all('#servers tr.columns th')) other.removeAttribute('aria-sort');
        if (servers.sort) {
          head.setAttribute('aria-sort', servers.sort.down ? 'descending' : 'ascending');
        }
        arrange(servers);
      });
    }

    // ---- steering -----------------------------------------------------------

    const steer = find('#steer');
    const outcome = find('#outcome');
    const choice = () => all('input[name=s]:checked', steer).filter((box) => !box.closest('[hidden]'));

    function count() {
      const chosen = choice().length;
      find('#chosen').textContent = chosen ? `${chosen} chosen:` : 'Chosen servers:';
    }

    function say(words, colour, undo) {
      const banner = document.createElement('div');
      banner.className = `banner ${colour}`;
      banner.setAttribute('role', 'status');
      const text = document.createElement('span');
      text.textContent = words;
      banner.append(text);
      if (undo) {
        const button = document.createElement('button');
        button.type = 'button';
        button.id = 'undo';
        button.textContent = 'Undo';
        button.addEventListener('click', () => send([['undo', undo]], 'undo'));
        banner.append(button);
      }
      const close = document.createElement('button');
      close.type = 'button';
      close.className = 'close';
      close.textContent = '[X]';
      close.title = 'Remove this message';
      close.addEventListener('click', () => outcome.replaceChildren());
      banner.append(close);
      outcome.replaceChildren(banner);
    }

    async function send(fields, what) {
      try {
        const answer = await fetch('./', {
          method: 'POST',
          body: new URLSearchParams(fields),
          headers: { accept: 'application/json' },
        });
        const { words, class: colour, undo } = await answer.json();
        say(`${what}: ${words}`, colour, undo);
      } catch {
        say(`${what}: the load balancer does not answer.`, 'active_down');
      }
    }

    function act(action, names, weight) {
      if (!names.length) { say('Choose servers first.', 'active_going_down'); return; }
      const fields = [['b', find('input[name=b]', steer).value], ['action', action]];
      if (weight !== undefined) fields.push(['weight', weight]);
      fields.push(...names.map((name) => ['s', name]));
      const few = names.length > 3 ? `${names.length} servers` : names.join(', ');
      send(fields, `${action} ${few}`);
      for (const box of choice()) box.checked = false;
      count();
    }

    if (steer) {
      const every = find('#all');
      every.closest('label').hidden = false;
      every.addEventListener('change', () => {
        for (const box of all('input[name=s]', steer)) {
          box.checked = every.checked && !box.closest('[hidden]');
        }
        count();
      });
      steer.addEventListener('change', count);
      steer.addEventListener('keydown', (event) => {
        if (event.key === 'Enter' && event.target.name === 'weight') {
          find('button[value=weight]', steer).click();
        }
      });
      steer.addEventListener('submit', (event) => {
        event.preventDefault();
        const { name, value } = event.submitter;
        if (name !== 'action') { act(name, [value]); return; }
        const weight = value === 'weight' ? find('input[name=weight]', steer).value : undefined;
        act(value, choice().map((box) => box.value), weight);
      });
    }

    // ---- keyboard and looks -------------------------------------------------

    const here = () => document.activeElement?.closest?.('#servers [data-k]');

    function step(by) {
      const rows = all('#servers [data-k]:not([hidden])');
      const next = rows[rows.indexOf(here()) + by] ?? rows[by > 0 ? 0 : rows.length - 1];
      const link = next && find('th a', next);
      link?.focus();
      link?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    }

    const keys = {
      '/': () => filter?.focus(),
      j: () => step(1),
      k: () => step(-1),
      p: pause,
    };
    if (steer) {
      const toHere = (action) => () => {
        const box = here() && find('input[name=s]', here());
        const names = choice().map((chosen) => chosen.value);
        act(action, names.length || !box ? names : [box.value]);
      };
      Object.assign(keys, {
        x: () => { const box = here() && find('input[name=s]', here()); box?.click(); },
        d: toHere('drain'),
        m: toHere('maint'),
        r: toHere('ready'),
        u: () => find('#undo')?.click(),
      });
    }
    document.addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const typing = event.target.matches('input:not([type=checkbox]), textarea, select');
      if (event.key === 'Escape') {
        if (typing) event.target.blur();
        else for (const box of choice()) box.checked = false;
        if (steer) count();
      } else if (!typing && Object.hasOwn(keys, event.key)) {
        event.preventDefault();
        keys[event.key]();
      }
    });

    light.title = 'Pause and go on (p)';
    light.addEventListener('click', pause);

    const button = find('#theme');
    const name = () => { button.textContent = theme[0].toUpperCase() + theme.slice(1); };
    button.hidden = false;
    name();
    button.addEventListener('click', () => {
      wear(themes[(themes.indexOf(theme) + 1) % themes.length]);
      try { localStorage.setItem('tidings-theme', theme); } catch { /* not kept, then */ }
      name();
    });
    find('.keys').hidden = false;
    connect();
  }
})();
