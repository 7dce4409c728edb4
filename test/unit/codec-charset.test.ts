/** Text and charsets: every name that can be written can be read, and nothing is lost on the way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeText, encodeText, encodingOf } from '#src/codec/charset';
import { dumps, loads, register, unregister } from '#src/codec/serialization';
import { DecodeError, EncodeError } from '#src/errors';

const NAMES = ['utf-8', 'UTF8', 'us-ascii', 'ascii', 'latin1', 'latin_1', 'ISO-8859-1', 'iso8859-1'].concat([
  'utf-16',
  'utf16',
  'utf-16le',
  'utf16le',
  'UTF_16_LE',
  'ucs2',
  'ucs-2',
  'utf-16be',
  'utf16be',
  'utf_16_be',
]);

test('text comes back as it was, or is refused', () => {
  const text = fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }), fc.string());
  fc.assert(
    fc.property(fc.constantFrom(...NAMES), text, (name, value) => {
      let bytes: Buffer;
      try {
        bytes = encodeText(value, name);
      } catch (error) {
        assert.ok(error instanceof EncodeError);
        const limit = /ascii/i.test(name) ? 0x7f : /latin|8859/i.test(name) ? 0xff : 0x10ffff;
        assert.ok(!value.isWellFormed() || [...value].some((character) => character.codePointAt(0)! > limit));
        return;
      }
      assert.equal(decodeText(bytes, encodingOf(undefined, name)), value);
    }),
    { numRuns: 1000 },
  );
});

test('the bytes are those that Python writes under the name', () => {
  const bytes = (name: string): string => encodeText('é', name).toString('hex');
  assert.deepEqual(['utf-8', 'latin-1', 'utf-16', 'utf-16-le', 'utf-16-be'].map(bytes), [
    'c3a9',
    'e9',
    'fffee900',
    'e900',
    '00e9',
  ]);
  assert.equal(decodeText(Buffer.from('feff00e9', 'hex'), 'utf-16'), 'é', 'a mark of the other order');
  assert.equal(decodeText(Buffer.from('e900', 'hex'), 'utf-16'), 'é', 'no mark');
  assert.equal(
    decodeText(Buffer.from('fffee900', 'hex'), 'utf-16le'),
    '\ufeffé',
    'a mark that the name excludes is text',
  );
});

test("Python's other names are understood, and mean what they mean there", () => {
  const read = (name: string, hex: string): string => decodeText(Buffer.from(hex, 'hex'), encodingOf(undefined, name));
  for (const name of ['U8', 'utf', 'cp65001']) assert.equal(read(name, 'c3a9'), 'é', name);
  for (const name of ['646', 'us']) assert.equal(read(name, '61'), 'a', name);
  for (const name of ['L1', 'latin', 'iso8859', '8859', 'cp819', 'IBM819', 'csISOLatin1', 'iso_8859_1_1987']) {
    assert.equal(read(name, '80e9'), '\x80é', name);
  }
  for (const name of ['cp1252', 'windows_1252', '1252', 'x-cp1252']) {
    assert.equal(read(name, '8099e99f'), '€™éŸ', name);
    assert.throws(() => read(name, '81'), DecodeError, 'nothing is at 0x81');
  }
  assert.equal(read('utf_8_sig', 'efbbbfc3a9'), 'é');
  assert.equal(read('utf-8-sig', 'c3a9efbbbf'), 'é\ufeff');
  assert.equal(encodeText('é', 'utf-8-sig').toString('hex'), 'efbbbfc3a9');
  assert.equal(read('utf-8', 'efbbbfc3a9'), '\ufeffé', 'a mark that the name does not take away is text');
  const others = {
    latin9: ['a4', '€'],
    cp932: ['82a0', 'あ'],
    cp936: ['d6d0', '中'],
    cp949: ['b0a1', '가'],
    cp950: ['a4a4', '中'],
    euc_jp: ['a4a2', 'あ'],
    iso2022_jp: ['1b244224221b2842', 'あ'],
    mac_roman: ['8e', 'é'],
    mac_cyrillic: ['80', 'А'],
    koi8_r: ['c1', 'а'],
  } as const;
  for (const [name, [hex, text]] of Object.entries(others)) assert.equal(read(name, hex), text, name);
});

test('what cannot be said in a charset is an error, never a shorter or another text', () => {
  for (const name of ['hex', 'base64', 'base64url', 'binary', 'koi8-r', 'klingon']) {
    assert.throws(() => encodeText('x', name), EncodeError, name);
  }
  for (const name of ['ascii', 'us-ascii', 'latin1', 'iso-8859-1'])
    assert.throws(() => encodeText('消', name), EncodeError);
  assert.throws(() => encodeText('é', 'ascii'), EncodeError);
  for (const name of NAMES) assert.throws(() => encodeText('a\ud800', name), EncodeError, name);
  for (const name of ['hex', 'base64', 'klingon'])
    assert.throws(() => decodeText(Buffer.from('ab'), name), DecodeError);
  assert.throws(() => decodeText(Buffer.of(0), 'utf-16le'), DecodeError, 'half a character');
});

test('a serializer sends its text in the charset it was registered with, or fails', () => {
  const own = (encoding: string): void =>
    register('own', String, (body, name) => decodeText(body, name), 'application/x-own', encoding);
  for (const encoding of ['latin1', 'utf-16', 'us-ascii']) {
    own(encoding);
    const { body, contentType, contentEncoding } = dumps('plain', 'own');
    assert.equal(loads(body, contentType, contentEncoding, { accept: ['own'] }), 'plain');
    assert.throws(() => dumps('\ud83d', 'own'), EncodeError);
    if (encoding !== 'utf-16') assert.throws(() => dumps('消', 'own'), EncodeError, encoding);
  }
  own('binary');
  assert.deepEqual(dumps('é', 'own').body, Buffer.from('é'), 'UTF-8 where it names none');
  unregister('own');
});

test('half a surrogate pair is refused by text, raw and msgpack; JSON has a way to say it', () => {
  for (const name of ['text', 'raw', 'msgpack']) assert.throws(() => dumps('a\udfff', name), EncodeError, name);
  const { body } = dumps('a\udfff', 'json');
  assert.equal(loads(body, 'application/json', 'utf-8'), 'a\udfff');
});
