const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, more = {}) => Object.assign(document.createElement(tag), more);

// tabs: a click or the arrow keys choose one
function tabs(list, choose) {
  const buttons = all('[role=tab]', list);
  const select = i => { buttons.forEach((b, j) => { b.setAttribute('aria-selected', i === j); b.tabIndex = i === j ? 0 : -1; }); choose(i); };
  buttons.forEach((b, i) => {
    b.addEventListener('click', () => select(i));
    b.addEventListener('keydown', e => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: buttons.length - 1 }[e.key];
      if (to === undefined) return;
      e.preventDefault(); const j = (to + buttons.length) % buttons.length; select(j); buttons[j].focus();
    });
  });
}

// a tab for each target
const sections = all('section.target');
if (sections.length > 1) {
  const list = make('div', { className: 'targets' }); list.setAttribute('role', 'tablist'); list.setAttribute('aria-label', 'targets');
  sections.forEach((s, i) => {
    const b = make('button', { type: 'button', textContent: s.dataset.target, id: 'tab-' + i });
    b.setAttribute('role', 'tab'); b.setAttribute('aria-controls', s.id = 'target-' + i); list.append(b);
    s.setAttribute('role', 'tabpanel'); s.setAttribute('aria-labelledby', b.id);
  });
  const show = i => sections.forEach((s, j) => s.hidden = i !== j);
  sections[0].before(list); tabs(list, show); list.firstChild.click();
}

// tables sort by their heads
function sorter(table) {
  const heads = all('thead th', table);
  all('thead button', table).forEach((b, i) => b.addEventListener('click', () => {
    const was = heads[i].getAttribute('aria-sort'), first = heads[i].dataset.first || 'descending'; // what is shown first
    const down = was === 'none' ? first === 'descending' : was === 'ascending', body = table.tBodies[0], value = r => r.cells[i].dataset.v;
    const number = [...body.rows].every(r => value(r) !== '' && !isNaN(value(r)));
    const rows = [...body.rows].sort((a, b) => (number ? value(a) - value(b) : value(a).localeCompare(value(b))) * (down ? -1 : 1));
    heads.forEach(h => h.setAttribute('aria-sort', 'none'));
    heads[i].setAttribute('aria-sort', down ? 'descending' : 'ascending'); body.append(...rows);
  }));
}

// a class table: sorted, searched, one target class at a time
all('.classes').forEach(box => {
  const table = box.querySelector('table'), data = JSON.parse(box.querySelector('script').textContent), rows = [...table.tBodies[0].rows];
  const at = Object.fromEntries(all('thead th', table).map((h, i) => [h.dataset.key, i])), sign = x => x < 0 ? '' : '+', d = data.digits;
  const [search, menu, count] = ['input', 'select', '.count'].map(s => box.querySelector(s));
  let column = 0;
  const set = (row, key, text, value) => { const c = row.cells[at[key]]; c.textContent = text; c.dataset.v = value; };
  const kept = row => {
    const k = row.dataset.k, v = data.v[k][column], q = data.q[k][column], sure = q !== null && q < .1 ? (v > 0 ? '+' : '-') : '0';
    const text = [...row.cells].slice(1, at.v).map(c => c.textContent).join(' ').toLowerCase();
    return text.includes(search.value.toLowerCase()) && (!menu.value || menu.value === sure);
  };
  const filter = () => { rows.forEach(r => r.hidden = !kept(r)); count.textContent = `${rows.filter(r => !r.hidden).length} of ${rows.length} classes`; };
  const show = i => {
    column = i;
    rows.forEach(r => {
      const [v, e, h, q] = ['v', 'e', 'h', 'q'].map(n => data[n][r.dataset.k][i]);
      if ([v, e, h, q].includes(null)) { for (const key of 'veiq') set(r, key, '', ''); return; }
      set(r, 'v', sign(v) + v.toFixed(d), v); set(r, 'e', e.toFixed(d), e); set(r, 'q', +q.toPrecision(2), q);
      set(r, 'i', `${sign(v - h)}${(v - h).toFixed(d - 1)} to ${sign(v + h)}${(v + h).toFixed(d - 1)}`, v - h);
    });
    table.tHead.rows[0].cells[at.v].setAttribute('aria-sort', 'none'); table.tHead.rows[0].cells[at.v].querySelector('button').click(); filter();
  };
  sorter(table); box.querySelector('.controls').hidden = false; filter();
  const list = box.querySelector('[role=tablist]'); if (list) tabs(list, show);
  search.addEventListener('input', filter); menu.addEventListener('change', filter);
});

// pictures open larger
const dialog = make('dialog'), close = make('button', { type: 'button', textContent: 'Close' });
dialog.setAttribute('aria-label', 'picture, enlarged'); document.body.append(dialog);
close.addEventListener('click', () => dialog.close());
dialog.addEventListener('click', e => e.target === dialog && dialog.close());
all('main img').forEach(img => {
  const b = make('button', { type: 'button', className: 'enlarge' }); b.setAttribute('aria-label', 'Enlarge: ' + img.alt); img.before(b); b.append(img);
  b.addEventListener('click', () => {
    const large = make('img', { src: img.src, alt: img.alt }); large.width = Math.max(img.naturalWidth, Math.min(innerWidth * .9, 2 * img.naturalWidth));
    dialog.replaceChildren(close, large); dialog.showModal();
  });
});

// lists to copy
all('.copy').forEach(box => {
  const b = box.querySelector('button'), text = box.querySelector('pre'); b.hidden = false;
  b.addEventListener('click', async () => {
    try { await navigator.clipboard.writeText(text.textContent); b.textContent = 'Copied'; }
    catch { getSelection().selectAllChildren(text); b.textContent = 'Selected: copy it'; }
  });
});
