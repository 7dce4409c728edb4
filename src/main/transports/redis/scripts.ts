/**
 * What must be done in one step, in Lua. Redis runs a script to its end before anybody else's command, but what a script has
 * written before an error stays written: so each step here is in an order in which a script that ends after any of them loses
 * nothing, and what other keys than its own have wrong is told in its answer.
 *
 * Scripts see bytes and never parse an envelope: Lua's numbers would change what is in it.
 */

/**
 * Takes messages and records them as delivered.
 *
 *   KEYS  unacked, unacked_index, a list…
 *   ARGV  most messages, most bytes, tag prefix, number of the first tag, '1' to keep no record,
 *         number of queues, for each: most messages, end of its records; then for each list: number of its queue (from 1)
 *   gives {list (from 1), envelope, list, envelope, …}; for a list that cannot be read {…, -list, error}
 *
 * Looked at, recorded, removed: in this order, so that whatever stops it leaves every message in its list or in its record. The
 * record `[envelope, "", "queue"]` has the empty exchange, so whoever restores it pushes it to exactly that queue.
 */
const TAKE = `
local unacked, index = KEYS[1], KEYS[2]
local room, bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local prefix, number, noRecord = ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'
local queues = tonumber(ARGV[6])
local time = redis.call('TIME')
local score = string.format('%d.%06d', tonumber(time[1]), tonumber(time[2]))
local left, ends = {}, {}
for q = 1, queues do
  left[q] = tonumber(ARGV[5 + 2 * q])
  ends[q] = ARGV[6 + 2 * q]
end
local out = {}
-- A server that is full refuses a script's first write if that may need room, and those after it not: what is taken frees as much.
local ready = redis.pcall('ZREM', index, '')
if type(ready) == 'table' and ready.err then return { 0, ready.err } end
for l = 1, #KEYS - 2 do
  local key = KEYS[l + 2]
  local q = tonumber(ARGV[6 + 2 * queues + l])
  local most = math.min(room, left[q])
  local size = 1
  while most > 0 and bytes > 0 do
    local found = redis.pcall('LRANGE', key, -math.min(size, most), -1)
    if found.err then
      out[#out + 1] = -l
      out[#out + 1] = found.err
      break
    end
    local records, scores, taken = {}, {}, 0
    -- the right end is the front of the line
    for i = #found, 1, -1 do
      if bytes <= 0 then break end
      local envelope = found[i]
      local tag = prefix .. string.format('%.0f', number)
      taken = taken + 1
      number = number + 1
      bytes = bytes - #envelope
      records[#records + 1] = tag
      records[#records + 1] = '[' .. envelope .. ends[q]
      scores[#scores + 1] = score
      scores[#scores + 1] = tag
      out[#out + 1] = l
      out[#out + 1] = envelope
    end
    if taken > 0 then
      if not noRecord then
        -- a place in the index without a record is removed by whoever looks for leases that are over
        local failed = redis.pcall('ZADD', index, unpack(scores))
        if type(failed) ~= 'table' or not failed.err then
          failed = redis.pcall('HSET', unacked, unpack(records))
          if type(failed) == 'table' and failed.err then
            for i = 2, #scores, 2 do redis.pcall('ZREM', index, scores[i]) end
          end
        end
        if type(failed) == 'table' and failed.err then
          -- they stay in the list
          for i = 1, 2 * taken do out[#out] = nil end
          out[#out + 1] = 0
          out[#out + 1] = failed.err
          return out
        end
      end
      redis.call('LTRIM', key, 0, -taken - 1)
      most = most - taken
      room = room - taken
      left[q] = left[q] - taken
    end
    if #found < math.min(size, most + taken) then break end
    -- slowly at first: what is looked at and not taken was read in vain
    size = math.min(size * 4, 64)
  end
end
return out`;

/**
 * Ends deliveries.
 *
 *   KEYS  unacked, unacked_index
 *   ARGV  tag…
 *   gives how many of them were still ours
 */
const ACK = `
local gone = redis.call('HDEL', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
return gone`;

/**
 * Renews leases. One that somebody has taken over meanwhile is not made again.
 *
 *   KEYS  unacked_index
 *   ARGV  tag…
 *   gives {the tags that are not ours any more}
 */
const RENEW = `
local time = redis.call('TIME')
local score = string.format('%d.%06d', tonumber(time[1]), tonumber(time[2]))
local lost = {}
-- as above: a server that is full must not end leases
redis.call('ZREM', KEYS[1], '')
for i = 1, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], score, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost`;

/** After a message was put back: `before` is the list's PTTL from before. */
const LAST = `
-- A list that is made by this push lasts as long as its queue, one that lasts less has its time anew. One that has no time has
-- messages of somebody who gave it none.
local function last(key, before, milliseconds)
  if milliseconds == '' then return end
  if before == -2 or (before >= 0 and before < tonumber(milliseconds)) then redis.call('PEXPIRE', key, milliseconds) end
end
`;

/**
 * Puts deliveries back into lists, in front.
 *
 *   KEYS  unacked, unacked_index, the list of each
 *   ARGV  '' or a time (only those whose lease is not younger), then for each: tag, envelope, ms that its queue lasts or ''
 *   gives {how many were put back, for each that could not be: its place (from 1), error}; what is not delivered any more is left
 *         alone, what could not be put back stays delivered
 */
const PUT_BACK = `${LAST}
local latest = ARGV[1]
local out = { 0 }
-- as above: also a full server takes back
redis.call('ZREM', KEYS[2], '')
for i = 1, #KEYS - 2 do
  local tag = ARGV[3 * i - 1]
  local score = redis.call('ZSCORE', KEYS[2], tag)
  if latest == '' or (score and tonumber(score) <= tonumber(latest)) then
    local failed
    if redis.call('HEXISTS', KEYS[1], tag) == 1 then
      local before = redis.call('PTTL', KEYS[i + 2])
      failed = redis.pcall('RPUSH', KEYS[i + 2], ARGV[3 * i])
      if type(failed) == 'table' and failed.err then
        out[#out + 1] = i
        out[#out + 1] = failed.err
      else
        failed = nil
        last(KEYS[i + 2], before, ARGV[3 * i + 1])
        redis.call('HDEL', KEYS[1], tag)
        out[1] = out[1] + 1
      end
    end
    if not failed then redis.call('ZREM', KEYS[2], tag) end
  end
end
return out`;

/**
 * Gives one delivery to every queue that it may have come from, in front: all of them, or none.
 *
 *   KEYS  unacked, unacked_index, list…
 *   ARGV  '' or a time (only if its lease is not younger), tag, envelope, for each list: ms that its queue lasts or ''
 *   gives {1 if it was put back, else 0}, or {0, place of the list (from 1), error}
 */
const RESTORE = `${LAST}
local latest, tag = ARGV[1], ARGV[2]
-- as above: also a full server takes back
redis.call('ZREM', KEYS[2], '')
local score = redis.call('ZSCORE', KEYS[2], tag)
if latest ~= '' and not (score and tonumber(score) <= tonumber(latest)) then return { 0 } end
if redis.call('HEXISTS', KEYS[1], tag) == 0 then
  redis.call('ZREM', KEYS[2], tag)
  return { 0 }
end
local before = {}
for l = 3, #KEYS do
  before[l] = redis.call('PTTL', KEYS[l])
  local failed = redis.pcall('RPUSH', KEYS[l], ARGV[3])
  if type(failed) == 'table' and failed.err then
    for done = 3, l - 1 do redis.call('RPOP', KEYS[done]) end
    return { 0, l - 2, failed.err }
  end
end
for l = 3, #KEYS do last(KEYS[l], before[l], ARGV[l + 1]) end
redis.call('HDEL', KEYS[1], tag)
redis.call('ZREM', KEYS[2], tag)
return { 1 }`;

/**
 * Looks for deliveries whose lease is over.
 *
 *   KEYS  unacked, unacked_index
 *   ARGV  visibility timeout in seconds, most
 *   gives {the time up to which they are over, tag, record, …}; tags without a record are removed
 */
const OVERDUE = `
local time = redis.call('TIME')
local latest = string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1000000 - tonumber(ARGV[1]))
local out = { latest }
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', latest, 'LIMIT', 0, ARGV[2])) do
  local record = redis.call('HGET', KEYS[1], tag)
  if record then
    out[#out + 1] = tag
    out[#out + 1] = record
  else
    redis.call('ZREM', KEYS[2], tag)
  end
end
return out`;

/**
 * Publishes to the queues that a direct or topic exchange has for the routing key, each once.
 *
 *   KEYS  the exchange's set of bindings
 *   ARGV  key prefix, separator, routing key, '1' for a topic, what the list's name has behind the queue's, envelope,
 *         the queue for what nobody is bound for or '', '1' to be told names, how many lists a queue has, for each: what its name
 *         has behind the queue's; then for each queue that ends unused: its name, ms
 *   gives the number of queues; where names are to be told {it, the name of each queue that was not said to end unused}
 *
 * Matches as kombu does: a word \`*\` is some text that does not end with a point, a word \`#\` any text, points included.
 */
const PUBLISH = `
local prefix, separator, key, topic = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local suffix, envelope = ARGV[5], ARGV[6]
local function matches(binding)
  if not topic then return binding == key end
  local words = {}
  for word in (binding .. '.'):gmatch('([^.]*)%.') do
    if word == '*' then words[#words + 1] = '.-[^%.]'
    elseif word == '#' then words[#words + 1] = '.-'
    else words[#words + 1] = (word:gsub('[%^%$%(%)%%%[%]%+%-%?]', '%%%0'))
    end
  end
  return key:match('^' .. table.concat(words, '%.') .. '$') ~= nil
end
local lists = tonumber(ARGV[9])
local lasting = {}
for i = 10 + lists, #ARGV, 2 do lasting[ARGV[i]] = ARGV[i + 1] end
local reached, count, others = {}, 0, { 0 }
local function push(queue)
  if queue == '' or reached[queue] then return end
  reached[queue] = true
  count = count + 1
  redis.call('LPUSH', prefix .. queue .. suffix, envelope)
  if lasting[queue] then
    for i = 10, 9 + lists do redis.call('PEXPIRE', prefix .. queue .. ARGV[i], lasting[queue]) end
  else
    others[#others + 1] = queue
  end
end
for _, member in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local first = member:find(separator, 1, true)
  local second = first and member:find(separator, first + #separator, true)
  if second and matches(member:sub(1, first - 1)) then push(member:sub(second + #separator)) end
end
if count == 0 and ARGV[7] ~= '' then push(ARGV[7]) end
if ARGV[8] ~= '1' then return count end
others[1] = count
return others`;

export const SCRIPTS = {
  mozukuTake: { lua: TAKE },
  mozukuAck: { lua: ACK },
  mozukuRenew: { lua: RENEW },
  mozukuPutBack: { lua: PUT_BACK },
  mozukuRestore: { lua: RESTORE },
  mozukuOverdue: { lua: OVERDUE },
  mozukuPublish: { lua: PUBLISH },
} as const;
