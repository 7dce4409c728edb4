/**
 * Topic exchanges: does a routing key match a pattern? Words are separated by dots; `*` stands for exactly one word, `#` for
 * any number of them, none included. As in RabbitMQ an empty key has no words, and "a." has two, the second one empty.
 */

export function topicWords(key: string): readonly string[] {
  return key === '' ? [] : key.split('.');
}

/**
 * Walks the key once per word of the pattern, holding the set of places that the pattern can have reached: no pattern of many
 * `#` makes it slow.
 */
export function matchesTopic(pattern: readonly string[], key: readonly string[]): boolean {
  // reached[i]: the pattern so far can have eaten the first i words of the key.
  let reached = new Uint8Array(key.length + 1);
  reached[0] = 1;
  for (const word of pattern) {
    const next = new Uint8Array(key.length + 1);
    if (word === '#') {
      const first = reached.indexOf(1);
      if (first >= 0) next.fill(1, first);
    } else {
      for (let i = 0; i < key.length; i++) if (reached[i] === 1 && (word === '*' || word === key[i])) next[i + 1] = 1;
    }
    reached = next;
  }
  return reached[key.length] === 1;
}
