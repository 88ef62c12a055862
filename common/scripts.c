#include "common/scripts.h"

#include "common/mem.h"

#include <assert.h>

/* Positions are 16 hex digits and compared as strings: Lua's numbers are doubles. Ids fit a double. */

#define LUA_GROUPS                                                                                           \
    "local ki, out = 1, {}\n"                                                                                \
    "local function each_group(ai, T, fn)\n"                                                                 \
    "  while ai <= #ARGV do\n"                                                                               \
    "    local epoch, n, count = ARGV[ai], ARGV[ai + 1], tonumber(ARGV[ai + 2])\n"                           \
    "    local bk = KEYS[ki]\n"                                                                              \
    "    local r = redis.call('HMGET', bk, 'epoch', 'n', 'stamp', 'seen')\n"                                 \
    "    if r[1] ~= epoch or r[2] ~= n then\n"                                                               \
    "      out[#out + 1] = 0\n"                                                                              \
    "    else\n"                                                                                             \
    "      fn(ki + 1, ki + count, r[3], bk)\n"                                                               \
    "      local seen = r[4]\n"                                                                              \
    "      if T > seen then seen = T end\n"                                                                  \
    "      redis.call('HSET', bk, 'n', string.format('%.0f', tonumber(n) + 1), 'seen', seen)\n"              \
    "      out[#out + 1] = 1\n"                                                                              \
    "    end\n"                                                                                              \
    "    ki, ai = ki + 1 + count, ai + 3\n"                                                                  \
    "  end\n"                                                                                                \
    "  return out\n"                                                                                         \
    "end\n"

/* The first of the removed tail has the largest id of it. LT only ever raises the floor (its score falls); when the
 * floor itself was in the kept part, everything removed lay below it. */
#define LUA_TRIM                                                                                             \
    "local function trim(k, cap)\n"                                                                          \
    "  local tail = redis.call('ZRANGE', k, cap, cap, 'WITHSCORES')\n"                                       \
    "  if #tail == 0 then return end\n"                                                                      \
    "  redis.call('ZREMRANGEBYRANK', k, cap, -1)\n"                                                          \
    "  redis.call('ZADD', k, 'LT', tail[2], 'f')\n"                                                          \
    "end\n"

static const char deliver[] =
    LUA_GROUPS LUA_TRIM
    "local T, id, score, cap, high = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])\n"
    "return each_group(6, T, function(from, to, stamp)\n"
    "  local all = T > stamp\n"
    "  for i = from, to do\n"
    "    local k = KEYS[i]\n"
    "    local c = redis.call('ZCARD', k)\n"
    "    if c > 0 then\n"
    "      if all or T > (redis.call('HGET', 'pf' .. string.sub(k, 3), 'r') or 'z') then\n"
    "        if c >= high then trim(k, cap) end\n"
    "        redis.call('ZADD', k, score, id)\n"
    "      end\n"
    "    end\n"
    "  end\n"
    "end)\n";

static const char remove_item[] =
    LUA_GROUPS "local T, id = ARGV[1], ARGV[2]\n"
               "return each_group(3, T, function(from, to)\n"
               "  for i = from, to do\n"
               "    local k = KEYS[i]\n"
               "    local pf = 'pf' .. string.sub(k, 3)\n"
               "    local m = redis.call('HMGET', pf, 'r', 'st')\n"
               "    if m[1] and T > m[1] then\n"
               "      if m[2] == 'b' then redis.call('DEL', k, pf) else redis.call('ZREM', k, id) end\n"
               "    end\n"
               "  end\n"
               "end)\n";

static const char drop[] = LUA_GROUPS "local T = ARGV[1]\n"
                                      "return each_group(2, T, function(from, to)\n"
                                      "  for i = from, to do\n"
                                      "    local k = KEYS[i]\n"
                                      "    local pf = 'pf' .. string.sub(k, 3)\n"
                                      "    local r = redis.call('HGET', pf, 'r')\n"
                                      "    if not r or r < T then redis.call('DEL', k, pf) end\n"
                                      "  end\n"
                                      "end)\n";

static const char progress[] = LUA_GROUPS "local T = ARGV[1]\n"
                                          "return each_group(2, T, function(_, _, _, bk)\n"
                                          "  local p = redis.call('HGET', bk, 'progress')\n"
                                          "  if T > p then redis.call('HSET', bk, 'progress', T) end\n"
                                          "end)\n";

static const char adopt[] =
    "local epoch, now, reset = ARGV[1], ARGV[2], ARGV[3]\n"
    "local r = redis.call('HMGET', KEYS[1], 'epoch', 'progress')\n"
    "if r[1] and r[1] > epoch then return {0, r[2]} end\n"
    "if not r[1] or not r[2] or reset == '1' then\n"
    "  redis.call('HSET', KEYS[1], 'epoch', epoch, 'n', '0', 'stamp', now, 'seen', now, 'born', now, 'progress', now)\n"
    "  return {2, now}\n"
    "end\n"
    "redis.call('HSET', KEYS[1], 'epoch', epoch, 'n', '0')\n"
    "return {1, r[2]}\n";

/* A rebuild reads the truth at R, so R covers everything that an absent timeline was not given: stamp and seen. */
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
    "return {1, R}\n";

static const char finish[] =
    LUA_TRIM
    "local token, floor, score, cap = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])\n"
    "if redis.call('HGET', KEYS[2], 'tk') ~= token then return 0 end\n"
    "local f = redis.call('ZSCORE', KEYS[1], 'f')\n"
    "if not f then return 0 end\n"
    "for i = 8, #ARGV, 200 do\n"
    "  redis.call('ZADD', KEYS[1], unpack(ARGV, i, math.min(i + 199, #ARGV)))\n"
    "end\n"
    "redis.call('ZADD', KEYS[1], 'LT', score, 'f')\n"
    "f = redis.call('ZSCORE', KEYS[1], 'f')\n"
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. f, '+inf')\n"
    "if redis.call('ZCARD', KEYS[1]) > cap + 1 then trim(KEYS[1], cap) end\n"
    "redis.call('HSET', KEYS[2], 'st', 'r', 'm', ARGV[6], 'x', ARGV[7])\n"
    "redis.call('HDEL', KEYS[2], 'tk')\n"
    "redis.call('PEXPIRE', KEYS[1], ARGV[5])\n"
    "redis.call('PEXPIRE', KEYS[2], ARGV[5])\n"
    "return 1\n";

static const struct {
    const char *name, *source;
} scripts[SCRIPT_N] = {
    [SCRIPT_DELIVER] = {"deliver", deliver}, [SCRIPT_REMOVE] = {"remove", remove_item},
    [SCRIPT_DROP] = {"drop", drop},          [SCRIPT_PROGRESS] = {"progress", progress},
    [SCRIPT_ADOPT] = {"adopt", adopt},       [SCRIPT_BUILD] = {"build", build},
    [SCRIPT_FINISH] = {"finish", finish},
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
