// The HTTP API as this page uses it: GET requests that answer JSON.

import { load } from './settings.js';

/** APIError is a failed request; its message is meant for the reader. */
export class APIError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** ExactNumber is a number whose JSON text JavaScript would not print back: 1.0, 9007199254740993. */
export class ExactNumber extends Number {
  constructor(value, source) {
    super(value);
    this.source = source;
  }
}

/** parse reads JSON and keeps each number as it was written, where the browser tells. */
export function parse(text) {
  return JSON.parse(text, (_, value, context) =>
    typeof value === 'number' && context?.source && String(value) !== context.source
      ? new ExactNumber(value, context.source) : value);
}

/** query renders parameters as a query string; empty values are left out, arrays repeat. */
export function query(params) {
  const out = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of [value].flat()) {
      if (one !== '' && one !== null && one !== undefined) out.append(name, one);
    }
  }
  return out.size ? '?' + out : '';
}

function detailText(detail) {
  if (typeof detail === 'string') return detail;
  if (!Array.isArray(detail)) return '';
  return detail.map(d => `${(d.loc ?? []).join('.')}: ${d.msg}`).join('; ');
}

function hint(status) {
  if (status === 401 || status === 403) return ' Enter the access token under Settings.';
  if (status === 503) return ' The store cannot reach its database; it recovers by itself.';
  return '';
}

/** get fetches a path below /v1/agl/. It throws an APIError, or the signal's AbortError. */
export async function get(path, params = {}, signal = undefined) {
  const { baseURL, token } = load();
  const root = baseURL.replace(/\/+$/, '') || location.origin;
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response, text;
  try {
    response = await fetch(`${root}/v1/agl/${path}${query(params)}`, { headers, signal });
    text = await response.text();
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    const other = root === location.origin ? '' : ' A store at another address must allow this origin (--cors-origin).';
    throw new APIError(`Cannot reach the store at ${root}. Check that it runs, and the address under Settings.${other}`);
  }
  let body;
  try {
    body = parse(text);
  } catch {
    throw new APIError(`${root} did not answer ${path} with JSON (status ${response.status}). Is it a store? Check the address under Settings.`, response.status);
  }
  if (!response.ok) {
    const text = detailText(body?.detail) || 'no detail given';
    throw new APIError(`${text} (status ${response.status}).${hint(response.status)}`, response.status);
  }
  return body;
}
