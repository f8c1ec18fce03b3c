// The search reads the pages that it found, to quote from them. Pages opened from disk may not be read: it quotes nothing there.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
