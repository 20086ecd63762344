/* A browser fetches no page from a file, so the search shows summaries only where there is a server. */
DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = location.protocol !== "file:";
