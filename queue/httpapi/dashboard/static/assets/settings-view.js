// The settings form.

import { get } from './api.js';
import { h, notice, tell } from './dom.js';
import { applyTheme, defaults, load, save } from './settings.js';

/** mount shows the form in root; it has nothing to refresh. */
export default function mount(root) {
  const answer = h('div', { 'aria-live': 'polite' });
  const form = h('form.settings', { onsubmit: submit });
  root.replaceChildren(h('h1', {}, 'Settings'), form, answer);
  draw(load());

  function draw(settings) {
    const choose = (name, value, text) => h('label.chip', {}, h('input', { type: 'radio', name, value, checked: settings[name] === value }), text);
    form.replaceChildren(
      field('Store address', h('input', { name: 'baseURL', type: 'url', value: settings.baseURL, placeholder: location.origin, spellcheck: 'false' }),
        'Empty: the store that serves this page. A store at another address has to allow this page with --cors-origin.'),
      field('Access token', h('input', { name: 'token', type: 'password', value: settings.token, autocomplete: 'off' }),
        'Needed when the store runs with --auth-token. It is kept in this browser and sent to the store address only.'),
      field('Refresh every', h('select', { name: 'refreshSeconds' }, [[1, '1 second'], [2, '2 seconds'], [5, '5 seconds'], [15, '15 seconds'], [60, '1 minute'], [0, 'never']].map(([value, text]) =>
        h('option', { value: String(value), selected: value === settings.refreshSeconds }, text))), 'Views refresh while the page is visible.'),
      h('fieldset', {}, h('legend', {}, 'Theme'), choose('theme', 'system', 'As the system'), choose('theme', 'light', 'Light'), choose('theme', 'dark', 'Dark')),
      h('p', {}, h('button.primary', { type: 'submit' }, 'Save'), ' ',
        h('button', { type: 'button', onclick: () => { draw(defaults); submit(); } }, 'Reset')));
  }

  async function submit(event) {
    event?.preventDefault();
    const values = Object.fromEntries(new FormData(form));
    const settings = { ...values, baseURL: values.baseURL.trim(), token: values.token.trim(), refreshSeconds: Number(values.refreshSeconds) };
    try {
      save(settings);
    } catch (error) {
      return tell(answer, notice('error', `This browser does not keep settings: ${error.message}. Allow site data for this page.`));
    }
    applyTheme(settings);
    try {
      const { name } = await get('statistics');
      tell(answer, notice('empty', `Saved. The store (${name}) answers.`));
    } catch (error) {
      tell(answer, notice('error', `Saved, but: ${error.message}`));
    }
  }
}

function field(label, input, help) {
  const id = `help-${input.name}`;
  input.setAttribute('aria-describedby', id);
  return h('div.field', {}, h('label', {}, h('span', {}, label), input), h('small', { id }, help));
}
