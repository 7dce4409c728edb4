/** A copy of a value, with each of the byte arrays in it replaced. */
export function mapBytes(value: unknown, replace: (bytes: Uint8Array) => unknown): unknown {
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  if (value instanceof Uint8Array) return replace(value);
  if (Array.isArray(value)) return value.map((each) => mapBytes(each, replace));
  const result: Record<string, unknown> = Object.create(null);
  for (const [key, each] of Object.entries(value)) result[key] = mapBytes(each, replace);
  return result;
}

/** Properties of a message with the byte arrays of its headers replaced; nothing else in them has any. */
export function mapHeaderBytes<Properties extends { readonly headers?: unknown }>(
  properties: Properties,
  replace: (bytes: Uint8Array) => unknown,
): Properties {
  const { headers } = properties;
  if (typeof headers !== 'object' || headers === null || Object.keys(headers).length === 0) return properties;
  return { ...properties, headers: mapBytes(headers, replace) };
}
