// Settings live in the browser's localStorage, one JSON object under one key.

const KEY = 'aglq.settings';

export const defaults = {
  baseURL: '',        // '' = the origin this page came from
  token: '',          // bearer token, sent only when set
  refreshSeconds: 5,  // 0 = refresh by hand
  theme: 'system',    // system, light or dark
};

/** load returns the stored settings over the defaults. */
export function load() {
  try {
    return { ...defaults, ...JSON.parse(localStorage.getItem(KEY) ?? '{}') };
  } catch {
    return { ...defaults };
  }
}

/** save stores the settings and tells the page about them. */
export function save(settings) {
  localStorage.setItem(KEY, JSON.stringify(settings));
  window.dispatchEvent(new Event('settings'));
}

/** applyTheme makes the chosen theme the page's. */
export function applyTheme(settings = load()) {
  document.documentElement.style.colorScheme = settings.theme === 'system' ? 'light dark' : settings.theme;
}
