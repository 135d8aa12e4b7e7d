//! Read-only scripts that return numbers and ids where the plain commands return whole entries.

/// Returns what XINFO STREAM reports about `KEYS[1]`: length, last id, first entry's id, last existing entry's id,
/// entries ever added, the bytes of the larger one of the first and last entry, and the largest id that XDEL removed.
pub(super) const SUMMARY: &str = "
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info.err then return info end
local length, last, first, added, final, bytes, deleted = 0, '', false, false, false, 0, false
for i = 1, #info, 2 do
  local name, value = info[i], info[i + 1]
  if name == 'length' then length = value
  elseif name == 'last-generated-id' then last = value
  elseif name == 'entries-added' then added = value
  elseif name == 'max-deleted-entry-id' then deleted = value
  elseif (name == 'first-entry' or name == 'last-entry') and value then
    if name == 'first-entry' then first = value[1] else final = value[1] end
    local size = 0
    for _, text in ipairs(value[2]) do size = size + #text end
    if size > bytes then bytes = size end
  end
end
return {length, last, first, final, added, bytes, deleted}";

/// Counts the entries of `KEYS[1]` from `ARGV[1]` on: at most `ARGV[2]` of them, and until `ARGV[3]` bytes were copied.
/// Returns the count, the id of the first entry, and 1 if the count is complete. Pages grow from one entry on, so that
/// large entries are read one by one.
pub(super) const COUNT: &str = "
local from, limit, budget = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local entries, bytes, largest, page, first = 0, 0, 1, 1, false
while entries < limit and bytes < budget do
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
    first = first or found[1][1]
    from = '(' .. found[#found][1]
  end
  entries = entries + #found
  if #found < asked then return {entries, first, 1} end
  page = math.max(1, math.min(page * 4, 200, math.floor((budget - bytes) / largest)))
end
return {entries, first, 0}";
