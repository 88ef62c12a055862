#include "common/scripts.h"

#include "common/mem.h"

#include <assert.h>

/* Positions are 16 hex digits and compared as strings: Lua's numbers are doubles. Ids fit a double. */

/* A key of another type must not stop what goes on beside it: a group that meets one is done again timeline
 * by timeline (all of this is harmless when done twice), and those with a wrong key are named. Other errors
 * (no memory, ...) are the whole call's. */
#define LUA_GROUPS                                                                                           \
    "local ki, out = 1, {}\n"                                                                                \
    "local function one_by_one(fn, from, to, stamp, bk, ai)\n"                                               \
    "  local told = {}\n"                                                                                    \
    "  for i = from, to do\n"                                                                                \
    "    local ok, answer = pcall(fn, i, i, stamp, bk, ai)\n"                                                \
    "    if not ok then\n"                                                                                   \
    "      local why = type(answer) == 'table' and answer.err or tostring(answer)\n"                         \
    "      if not string.find(why, 'WRONGTYPE', 1, true) then error(answer) end\n"                           \
    "      told[#told + 1] = string.match(KEYS[i], '}:(.*)$') .. ' ' .. why\n"                               \
    "    elseif type(answer) == 'table' then\n"                                                              \
    "      told[#told + 1] = i - from\n"                                                                     \
    "    end\n"                                                                                              \
    "  end\n"                                                                                                \
    "  return told\n"                                                                                        \
    "end\n"                                                                                                  \
    "local function each_group(ai, T, fn, width)\n"                                                          \
    "  while ai <= #ARGV do\n"                                                                               \
    "    local epoch, n, count = ARGV[ai], ARGV[ai + 1], tonumber(ARGV[ai + 2])\n"                           \
    "    local bk = KEYS[ki]\n"                                                                              \
    "    local r = redis.call('HMGET', bk, 'epoch', 'n', 'stamp', 'seen')\n"                                 \
    "    if r[1] ~= epoch or r[2] ~= n then\n"                                                               \
    "      out[#out + 1] = 0\n"                                                                              \
    "    else\n"                                                                                             \
    "      local ok, answer = pcall(fn, ki + 1, ki + count, r[3], bk, ai)\n"                                 \
    "      if not ok then\n"                                                                                 \
    "        if count == 0 then error(answer) end\n"                                                         \
    "        answer = one_by_one(fn, ki + 1, ki + count, r[3], bk, ai)\n"                                    \
    "      end\n"                                                                                            \
    "      local seen = r[4]\n"                                                                              \
    "      if T > seen then seen = T end\n"                                                                  \
    "      redis.call('HSET', bk, 'n', string.format('%.0f', tonumber(n) + 1), 'seen', seen)\n"              \
    "      out[#out + 1] = answer or 1\n"                                                                    \
    "    end\n"                                                                                              \
    "    ki, ai = ki + 1 + count, ai + (width or 3)\n"                                                       \
    "  end\n"                                                                                                \
    "  return out\n"                                                                                         \
    "end\n"

/* A text: SCRIPT_NEWBORNS_MAX of scripts.h. */
#define LUA_NEWBORNS "256"

/* The first of the removed tail has the largest id of it. LT only ever raises the floor (its score falls);
 * when the floor itself was in the kept part, everything removed lay below it. */
#define LUA_TRIM                                                                                             \
    "local function trim(k, cap)\n"                                                                          \
    "  local tail = redis.call('ZRANGE', k, cap, cap, 'WITHSCORES')\n"                                       \
    "  if #tail == 0 then return end\n"                                                                      \
    "  redis.call('ZREMRANGEBYRANK', k, cap, -1)\n"                                                          \
    "  redis.call('ZADD', k, 'LT', tail[2], 'f')\n"                                                          \
    "end\n"

static const char deliver[] = LUA_GROUPS LUA_TRIM
    "local T, id, score, cap, high = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])\n"
    "local tell = ARGV[6] == '1'\n"
    "return each_group(7, T, function(from, to, stamp)\n"
    "  local all, gone = T > stamp, nil\n"
    "  for i = from, to do\n"
    "    local k = KEYS[i]\n"
    "    local c = redis.call('ZCARD', k)\n"
    "    if c > 0 then\n"
    "      if all or T > (redis.call('HGET', 'pf' .. string.sub(k, 3), 'r') or 'z') then\n"
    "        if c >= high then trim(k, cap) end\n"
    "        redis.call('ZADD', k, score, id)\n"
    "      end\n"
    "    elseif tell then\n"
    "      gone = gone or {}\n"
    "      gone[#gone + 1] = i - from\n"
    "    end\n"
    "  end\n"
    "  return gone\n"
    "end)\n";

/* Items that wait for the same timelines: one visit of each, which is what costs. Where none of them is there
 * and all of them stay, as mostly, room is made first, so that a timeline neither grows beyond its cap nor
 * falls below it, and the floor goes with them in one ZADD. Else (late items, a second delivery) in steps. */
static const char deliver_many[] = LUA_GROUPS LUA_TRIM
    "local T, cap, high, tell = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'\n"
    "local m, at, members, new, oldest = tonumber(ARGV[5]), {}, {[2] = 'f'}, {}\n"
    "for i = 1, m do\n"
    "  local score, id = ARGV[5 + 3 * i], ARGV[4 + 3 * i]\n"
    "  at[i], members[2 * i + 1], members[2 * i + 2], new[id] = ARGV[3 + 3 * i], score, id, true\n"
    "  if not oldest or tonumber(score) > tonumber(oldest) then oldest = score end\n"
    "end\n"
    "local function replace(k, n)\n"
    "  local rank, above = cap - n, redis.call('ZRANGE', k, '-inf', oldest, 'BYSCORE')\n"
    "  if #above > rank then return false end\n"
    "  for _, id in ipairs(above) do\n"
    "    if new[id] or id == 'f' then return false end\n"
    "  end\n"
    "  local tail = redis.call('ZRANGE', k, rank, rank)[1]\n"
    "  if not tail or not string.find(tail, '^%d+$') then return false end\n"
    "  redis.call('ZREMRANGEBYRANK', k, rank, -1)\n"
    "  members[1] = '-' .. tail\n"
    "  return true\n"
    "end\n"
    "local function add_in_steps(k, first)\n"
    "  local step = high - cap - 1\n"
    "  for i = first, m, step do\n"
    "    if redis.call('ZCARD', k) + step > high then trim(k, cap) end\n"
    "    redis.call('ZADD', k, unpack(members, 2 * i + 1, 2 * math.min(i + step, m + 1)))\n"
    "  end\n"
    "end\n"
    "local function add(k, first, c)\n"
    "  local n = m + 1 - first\n"
    "  if c + n <= high then\n"
    "    redis.call('ZADD', k, unpack(members, 2 * first + 1))\n"
    "  elseif first == 1 and replace(k, n) then\n"
    "    redis.call('ZADD', k, 'LT', unpack(members))\n"
    "  else\n"
    "    add_in_steps(k, first)\n"
    "  end\n"
    "end\n"
    "return each_group(6 + 3 * m, T, function(from, to, stamp)\n"
    "  local all, gone = at[1] > stamp, nil\n"
    "  for i = from, to do\n"
    "    local k, first = KEYS[i], 1\n"
    "    local c = redis.call('ZCARD', k)\n"
    "    if c > 0 then\n"
    "      if not all then\n"
    "        local r = redis.call('HGET', 'pf' .. string.sub(k, 3), 'r') or 'z'\n"
    "        while first <= m and at[first] <= r do first = first + 1 end\n"
    "      end\n"
    "      if first <= m then add(k, first, c) end\n"
    "    elseif tell then\n"
    "      gone = gone or {}\n"
    "      gone[#gone + 1] = i - from\n"
    "    end\n"
    "  end\n"
    "  return gone\n"
    "end)\n";

static const char remove_item[] = LUA_GROUPS "local T, id = ARGV[1], ARGV[2]\n"
                                             "return each_group(3, T, function(from, to)\n"
                                             "  for i = from, to do\n"
                                             "    local k = KEYS[i]\n"
                                             "    local pf = 'pf' .. string.sub(k, 3)\n"
                                             "    local m = redis.call('HMGET', pf, 'r', 'st')\n"
                                             "    if m[1] and T > m[1] then\n"
                                             "      if m[2] == 'b' then\n"
                                             "        redis.call('DEL', k, pf)\n"
                                             "      elseif redis.call('ZREM', k, id) == 1 then\n"
                                             "        redis.call('HINCRBY', pf, 'd', 1)\n"
                                             "      end\n"
                                             "    end\n"
                                             "  end\n"
                                             "end)\n";

static const char drop[] =
    LUA_GROUPS "local T = ARGV[1]\n"
               "return each_group(2, T, function(from, to)\n"
               "  local stays\n"
               "  for i = from, to do\n"
               "    local k = KEYS[i]\n"
               "    local pf = 'pf' .. string.sub(k, 3)\n"
               "    local r = redis.pcall('HGET', pf, 'r')\n"
               "    if type(r) ~= 'string' or r < T then redis.call('DEL', k, pf) else stays = 2 end\n"
               "  end\n"
               "  return stays\n"
               "end)\n";

/* A pull list is "\n" and then each target with a "\n" behind it, so that "\ntarget\n" is found in it
 * whatever other names it holds. A turn that meets a timeline being built takes its token: what its rebuild
 * has read of the target's mode may be older. */
#define LUA_EACH_LISTED                                                                                      \
    "local function each_listed(from, to, T, fn)\n"                                                          \
    "  for i = from, to do\n"                                                                                \
    "    local k = KEYS[i]\n"                                                                                \
    "    local pf = 'pf' .. string.sub(k, 3)\n"                                                              \
    "    local m = redis.call('HMGET', pf, 'r', 'st', 'p')\n"                                                \
    "    if m[1] and T > m[1] then\n"                                                                        \
    "      if m[2] == 'b' then redis.call('DEL', k, pf) else fn(k, pf, m[3] or '\\n') end\n"                 \
    "    end\n"                                                                                              \
    "  end\n"                                                                                                \
    "end\n"

static const char turn_to_pull[] =
    LUA_GROUPS LUA_EACH_LISTED "local T, target = ARGV[1], ARGV[2]\n"
                               "local entry = '\\n' .. target .. '\\n'\n"
                               "return each_group(3, T, function(from, to)\n"
                               "  each_listed(from, to, T, function(_, pf, list)\n"
                               "    if not string.find(list, entry, 1, true) then\n"
                               "      redis.call('HSET', pf, 'p', list .. target .. '\\n')\n"
                               "    end\n"
                               "  end)\n"
                               "end)\n";

/* What is not kept goes before what is new comes: the set never holds more than it did, or cap and the floor,
 * and so stays below the limit of the listpack encoding. */
static const char turn_to_push[] = LUA_GROUPS LUA_EACH_LISTED
    "local T, entry, cap, newest = ARGV[1], '\\n' .. ARGV[2] .. '\\n', tonumber(ARGV[3]), tonumber(ARGV[5])\n"
    "local function merge(k)\n"
    "  local f = redis.call('ZSCORE', k, 'f')\n"
    "  if not f then return end\n"
    "  if tonumber(ARGV[4]) < tonumber(f) then f = ARGV[4] end\n"
    "  local floor, has, ids, keep, gone, new = -tonumber(f), {}, {}, {f = true}, {}, {}\n"
    "  local old = redis.call('ZRANGE', k, 0, -1)\n"
    "  for _, id in ipairs(old) do\n"
    "    has[id] = true\n"
    "    if id ~= 'f' and tonumber(id) > floor then ids[#ids + 1] = id end\n"
    "  end\n"
    "  for i = 6, 5 + newest do\n"
    "    if not has[ARGV[i]] and tonumber(ARGV[i]) > floor then ids[#ids + 1] = ARGV[i] end\n"
    "  end\n"
    "  table.sort(ids, function(a, b) return tonumber(a) > tonumber(b) end)\n"
    "  if #ids > cap then f = '-' .. ids[cap + 1] end\n"
    "  for i = 1, math.min(cap, #ids) do\n"
    "    keep[ids[i]] = true\n"
    "    if not has[ids[i]] then\n"
    "      new[#new + 1] = '-' .. ids[i]\n"
    "      new[#new + 1] = ids[i]\n"
    "    end\n"
    "  end\n"
    "  for _, id in ipairs(old) do\n"
    "    if not keep[id] then gone[#gone + 1] = id end\n"
    "  end\n"
    "  for i = 1, #gone, 1000 do redis.call('ZREM', k, unpack(gone, i, math.min(i + 999, #gone))) end\n"
    "  redis.call('ZADD', k, f, 'f')\n"
    "  for i = 1, #new, 1000 do redis.call('ZADD', k, unpack(new, i, math.min(i + 999, #new))) end\n"
    "end\n"
    "return each_group(6 + newest, T, function(from, to)\n"
    "  each_listed(from, to, T, function(k, pf, list)\n"
    "    local a, b = string.find(list, entry, 1, true)\n"
    "    if not a then return end\n"
    "    merge(k)\n"
    "    local rest = string.sub(list, 1, a) .. string.sub(list, b + 1)\n"
    "    if rest == '\\n' then redis.call('HDEL', pf, 'p') else redis.call('HSET', pf, 'p', rest) end\n"
    "  end)\n"
    "end)\n";

/* Whoever builds a timeline after this finds its T in `seen`: so who was born before and is not known to the
 * owner is all that may still lack something. */
static const char progress[] =
    LUA_GROUPS "local T, P = ARGV[1], ARGV[2]\n"
               "return each_group(3, T, function(_, _, _, bk, ai)\n"
               "  local r, known = redis.call('HMGET', bk, 'progress', 'births'), ARGV[ai + 3]\n"
               "  local births = r[2] or '0'\n"
               "  if known == '-' or known == births then\n"
               "    if P > r[1] then redis.call('HSET', bk, 'progress', P) end\n"
               "    return 1\n"
               "  end\n"
               "  local new = tonumber(births) - tonumber(known)\n"
               "  if new < 0 or new > " LUA_NEWBORNS " then return {births} end\n"
               "  local list = redis.pcall('LRANGE', 'bn' .. string.sub(bk, 3), 0, new - 1)\n"
               "  if list.err then return {births} end\n"
               "  list[#list + 1] = births\n"
               "  return list\n"
               "end, 4)\n";

/* A record made anew over an old one keeps the later of the stamps: timelines built meanwhile, with an R
 * after `now`, are still there, and a change that they have seen must not be taken for new. */
static const char adopt[] = "local epoch, now, reset = ARGV[1], ARGV[2], ARGV[3]\n"
                            "local r = redis.pcall('HMGET', KEYS[1], 'epoch', 'progress', 'stamp', 'seen')\n"
                            "if r.err then\n"
                            "  if redis.call('TYPE', KEYS[1]).ok == 'hash' then return r end\n"
                            "  redis.call('DEL', KEYS[1])\n"
                            "  r = {}\n"
                            "end\n"
                            "if r[1] and r[1] > epoch then return {0, r[2]} end\n"
                            "if not (r[1] and r[2] and r[3] and r[4]) or reset == '1' then\n"
                            "  local stamp, seen = now, now\n"
                            "  if r[3] and r[3] > stamp then stamp = r[3] end\n"
                            "  if r[4] and r[4] > seen then seen = r[4] end\n"
                            "  redis.call('HSET', KEYS[1], 'epoch', epoch, 'n', '0', 'stamp', stamp, 'seen', "
                            "seen, 'born', now, 'progress', now)\n"
                            "  return {2, now}\n"
                            "end\n"
                            "redis.call('HSET', KEYS[1], 'epoch', epoch, 'n', '0')\n"
                            "return {1, r[2]}\n";

/* A rebuild reads the truth at R, so R covers everything that an absent timeline was not given: stamp and
 * seen. */
static const char build[] =
    "local least, token, ttl = ARGV[1], ARGV[2], ARGV[3]\n"
    "local rec = redis.call('HMGET', KEYS[3], 'stamp', 'seen', 'born')\n"
    "if not rec[1] then return {-1} end\n"
    "local m = redis.call('HMGET', KEYS[2], 'r', 'st')\n"
    "if m[1] and m[1] >= least and m[1] >= rec[3] and redis.call('EXISTS', KEYS[1]) == 1 then\n"
    "  return {m[2] == 'r' and 2 or 0, m[1]}\n"
    "end\n"
    "local R = least\n"
    "if rec[1] > R then R = rec[1] end\n"
    "if rec[2] > R then R = rec[2] end\n"
    "redis.call('DEL', KEYS[1], KEYS[2])\n"
    "redis.call('ZADD', KEYS[1], '0', 'f')\n"
    "redis.call('HSET', KEYS[2], 'r', R, 'st', 'b', 'tk', token)\n"
    "redis.call('PEXPIRE', KEYS[1], ttl)\n"
    "redis.call('PEXPIRE', KEYS[2], ttl)\n"
    "redis.call('HSET', KEYS[3], 'stamp', R)\n"
    "redis.call('HINCRBY', KEYS[3], 'births', 1)\n"
    "local bn = 'bn' .. string.sub(KEYS[3], 3)\n"
    "local born = R .. string.match(KEYS[1], '}:(.*)$')\n"
    "if type(redis.pcall('LPUSH', bn, born)) == 'table' then\n"
    "  redis.call('DEL', bn)\n"
    "  redis.call('LPUSH', bn, born)\n"
    "end\n"
    "redis.call('LTRIM', bn, 0, " LUA_NEWBORNS " - 1)\n"
    "return {1, R}\n";

/* What was delivered meanwhile and what was read are merged here and written once, at most cap + 1 members:
 * adding to what is there and trimming afterwards would pass the limit of the listpack encoding, from which a
 * set never comes back. */
static const char finish[] =
    "local token, cap = ARGV[1], tonumber(ARGV[4])\n"
    "if redis.call('HGET', KEYS[2], 'tk') ~= token then return 0 end\n"
    "local f = redis.call('ZSCORE', KEYS[1], 'f')\n"
    "if not f then return 0 end\n"
    "if tonumber(ARGV[3]) < tonumber(f) then f = ARGV[3] end\n"
    "local floor, known, ids = -tonumber(f), {f = true}, {}\n"
    "local function take(id)\n"
    "  if not known[id] and tonumber(id) > floor then\n"
    "    known[id] = true\n"
    "    ids[#ids + 1] = id\n"
    "  end\n"
    "end\n"
    "for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do take(id) end\n"
    "for i = 10, #ARGV, 2 do take(ARGV[i]) end\n"
    "table.sort(ids, function(a, b) return tonumber(a) > tonumber(b) end)\n"
    "if #ids > cap then f = '-' .. ids[cap + 1] end\n"
    "redis.call('DEL', KEYS[1])\n"
    "redis.call('ZADD', KEYS[1], f, 'f')\n"
    "local members = {}\n"
    "for i = math.min(cap, #ids), 1, -1 do\n"
    "  members[#members + 1] = '-' .. ids[i]\n"
    "  members[#members + 1] = ids[i]\n"
    "end\n"
    "for i = 1, #members, 1000 do\n"
    "  redis.call('ZADD', KEYS[1], unpack(members, i, math.min(i + 999, #members)))\n"
    "end\n"
    "redis.call('HSET', KEYS[2], 'st', 'r', 'm', ARGV[6], 'x', ARGV[7])\n"
    "if ARGV[8] ~= '' then redis.call('HSET', KEYS[2], 'p', ARGV[8]) end\n"
    "redis.call('HDEL', KEYS[2], 'tk')\n"
    "redis.call('PEXPIRE', KEYS[1], ARGV[5])\n"
    "redis.call('PEXPIRE', KEYS[2], ARGV[5])\n"
    "return 1\n";

static const char events[] =
    "local longest, ttl, user = ARGV[1], ARGV[2], ARGV[3]\n"
    "local key, out = 2, {}\n"
    "for i = 4, #ARGV, 5 do\n"
    "  local taken = 1\n"
    "  if ARGV[i + 4] == '1' then\n"
    "    if not redis.call('SET', KEYS[key], '1', 'NX', 'PX', ttl) then taken = 0 end\n"
    "    key = key + 1\n"
    "  end\n"
    "  if taken == 1 then\n"
    "    redis.call('XADD', KEYS[1], 'MAXLEN', '~', longest, '*', 'u', user, 't', ARGV[i], 'i', ARGV[i + "
    "1],\n"
    "               'a', ARGV[i + 2], 'd', ARGV[i + 3])\n"
    "  end\n"
    "  out[#out + 1] = taken\n"
    "end\n"
    "return out\n";

/* Acknowledging first makes each entry count once, however often it is delivered; the sets of who did what
 * are HyperLogLogs, so that one reader who repeats himself adds nothing and an item's memory is bounded. */
static const char learn[] =
    "local group, now = ARGV[1], tonumber(ARGV[2])\n"
    "local half_a, half_e, fields = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])\n"
    "local function add(key, field, half, w)\n"
    "  local old, sum = redis.call('HGET', key, field), 0\n"
    "  if old then\n"
    "    local v, at = string.match(old, '^(%S+) (%S+)$')\n"
    "    sum = tonumber(v) * 2 ^ (-math.max(0, now - tonumber(at)) / half)\n"
    "  end\n"
    "  redis.call('HSET', key, field, string.format('%.6g %.0f', sum + w, now))\n"
    "end\n"
    "local function prune(key)\n"
    "  if redis.call('HLEN', key) <= fields then return end\n"
    "  local all, list = redis.call('HGETALL', key), {}\n"
    "  for i = 1, #all, 2 do\n"
    "    local v, at = string.match(all[i + 1], '^(%S+) (%S+)$')\n"
    "    list[#list + 1] = {all[i], math.abs(tonumber(v)) * 2 ^ (-math.max(0, now - tonumber(at)) / "
    "half_a)}\n"
    "  end\n"
    "  table.sort(list, function(x, y) return x[2] < y[2] end)\n"
    "  for i = 1, #list - math.floor(fields * 0.8) do redis.call('HDEL', key, list[i][1]) end\n"
    "end\n"
    "local key, i, learned = 2, 8, 0\n"
    "while i <= #ARGV do\n"
    "  local id, who, wa, we, n = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), "
    "tonumber(ARGV[i + 4])\n"
    "  if redis.call('XACK', KEYS[1], group, id) == 1 then\n"
    "    redis.call('XDEL', KEYS[1], id)\n"
    "    local af, ic, ih = KEYS[key], KEYS[key + 1], KEYS[key + 2]\n"
    "    if wa ~= 0 and n > 0 then\n"
    "      for t = i + 5, i + 4 + n do add(af, ARGV[t], half_a, wa) end\n"
    "      prune(af)\n"
    "      redis.call('PEXPIRE', af, ARGV[6])\n"
    "    end\n"
    "    if we ~= 0 and n > 0 and redis.call('PFADD', ih, who) == 1 then\n"
    "      add(ic, 'e', half_e, we)\n"
    "      redis.call('PEXPIRE', ic, ARGV[7])\n"
    "      redis.call('PEXPIRE', ih, ARGV[7])\n"
    "    end\n"
    "    learned = learned + 1\n"
    "  end\n"
    "  key, i = key + 3, i + 5 + n\n"
    "end\n"
    "return learned\n";

/* One that is being built has an expiry of its own, and that stays. */
static const char touch[] =
    "if redis.call('HGET', KEYS[2], 'st') ~= 'r' or redis.call('EXISTS', KEYS[1]) == 0 then return 0 end\n"
    "redis.call('HSET', KEYS[2], 'x', ARGV[2])\n"
    "redis.call('PEXPIRE', KEYS[1], ARGV[1])\n"
    "redis.call('PEXPIRE', KEYS[2], ARGV[1])\n"
    "return 1\n";

/* An absent timeline is right at any time. Nothing here asks for memory: it works when there is none left. */
static const char evict[] = "if redis.call('HGET', KEYS[2], 'x') ~= ARGV[1] then return 0 end\n"
                            "redis.call('DEL', KEYS[1], KEYS[2])\n"
                            "return 1\n";

/* R names one building of it: who was rebuilt meanwhile keeps what he has. An R that is not one of ours may
 * be longer than the caller keeps. */
static const char discard[] = "local r = redis.call('HGET', KEYS[2], 'r')\n"
                              "if not r or string.sub(r, 1, #ARGV[1]) ~= ARGV[1] or (#r ~= #ARGV[1] and "
                              "#ARGV[1] <= 16) then return 0 end\n"
                              "redis.call('DEL', KEYS[1], KEYS[2])\n"
                              "return 1\n";

/* Who was built is counted from the list's head: his place in it stays. */
static const char erase[] = "local list = redis.pcall('LRANGE', KEYS[4], 0, -1)\n"
                            "for i = 1, #list do\n"
                            "  if string.sub(list[i], 17) == ARGV[1] then\n"
                            "    redis.call('LSET', KEYS[4], i - 1, string.sub(list[i], 1, 16) .. '/')\n"
                            "  end\n"
                            "end\n"
                            "return redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])\n";

static const struct {
    const char *name, *source;
} scripts[SCRIPT_N] = {
    [SCRIPT_DELIVER_MANY] = {"deliver_many", deliver_many},
    [SCRIPT_DELIVER] = {"deliver", deliver},
    [SCRIPT_REMOVE] = {"remove", remove_item},
    [SCRIPT_DROP] = {"drop", drop},
    [SCRIPT_PULL] = {"pull", turn_to_pull},
    [SCRIPT_PUSH] = {"push", turn_to_push},
    [SCRIPT_PROGRESS] = {"progress", progress},
    [SCRIPT_ADOPT] = {"adopt", adopt},
    [SCRIPT_BUILD] = {"build", build},
    [SCRIPT_FINISH] = {"finish", finish},
    [SCRIPT_EVENTS] = {"events", events},
    [SCRIPT_LEARN] = {"learn", learn},
    [SCRIPT_TOUCH] = {"touch", touch},
    [SCRIPT_EVICT] = {"evict", evict},
    [SCRIPT_DISCARD] = {"discard", discard},
    [SCRIPT_ERASE] = {"erase", erase},
};

const char *script_source(enum script s)
{
    assert(s < SCRIPT_N);
    return scripts[s].source;
}

const char *script_name(enum script s)
{
    assert(s < SCRIPT_N);
    return scripts[s].name;
}
