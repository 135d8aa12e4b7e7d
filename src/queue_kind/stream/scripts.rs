//! Read-only scripts that return numbers and ids where the plain commands return whole entries.

/// Returns what XINFO STREAM reports about `KEYS[1]`: length, last id, first entry's id, last existing entry's id,
/// entries ever added, the largest id that XDEL removed, and the bytes of the first and of the last entry.
///
/// A script takes 13 times the server's time for a large entry that the command itself takes, so with `ARGV[1]` =
/// `first` the script leaves the last entry out: XINFO STREAM FULL returns only the first one, but all consumers. The
/// last id is the last entry's unless that was deleted.
pub(super) const SUMMARY: &str = "
local is_full, info = ARGV[1] == 'first', nil
if is_full then info = redis.pcall('XINFO', 'STREAM', KEYS[1], 'FULL', 'COUNT', 1)
else info = redis.pcall('XINFO', 'STREAM', KEYS[1]) end
if info.err then return info end
local length, last, added, deleted = 0, '', false, false
local first, final, first_bytes, final_bytes = false, false, 0, false
local function size(entry)
  local bytes = 0
  for _, text in ipairs(entry[2]) do bytes = bytes + #text end
  return bytes
end
for i = 1, #info, 2 do
  local name, value = info[i], info[i + 1]
  if name == 'length' then length = value
  elseif name == 'last-generated-id' then last = value
  elseif name == 'entries-added' then added = value
  elseif name == 'max-deleted-entry-id' then deleted = value
  elseif name == 'first-entry' and value then first, first_bytes = value[1], size(value)
  elseif name == 'last-entry' and value then final, final_bytes = value[1], size(value)
  elseif name == 'entries' and value[1] then first, first_bytes = value[1][1], size(value[1])
  end
end
if is_full and length > 0 and deleted and deleted ~= last then final = last end
return {length, last, first, final, added, deleted, first_bytes, final_bytes}";

/// Counts the entries of `KEYS[1]` from `ARGV[1]` on: at most `ARGV[2]` of them, and at most `ARGV[3]` bytes of them
/// besides the first, as far as the sizes can be foreseen: `ARGV[4]` is the largest size known so far. Returns the
/// count, the id of the first entry, 1 if the count is complete, the id of the last entry counted, and the bytes. Pages
/// grow from one entry on, so that large entries are read one by one.
pub(super) const COUNT: &str = "
local from, limit, budget, largest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), math.max(1, tonumber(ARGV[4]))
local entries, bytes, page, first, last = 0, 0, 1, false, false
repeat
  local asked = math.min(page, limit - entries)
  local found = redis.pcall('XRANGE', KEYS[1], from, '+', 'COUNT', asked)
  if found.err then return found end
  for _, entry in ipairs(found) do
    local size = 0
    for _, text in ipairs(entry[2]) do size = size + #text end
    bytes = bytes + size
    if size > largest then largest = size end
  end
  if #found > 0 then
    first, last = first or found[1][1], found[#found][1]
    from = '(' .. last
  end
  entries = entries + #found
  if #found < asked then return {entries, first, 1, last, bytes} end
  page = math.min(page * 4, 64, math.floor((budget - bytes) / largest))
until page < 1 or entries >= limit
return {entries, first, 0, last, bytes}";
