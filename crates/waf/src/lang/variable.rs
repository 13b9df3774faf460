//! The variables of SecLang, by the names that ModSecurity v3 gives them.

/// What kind of thing a variable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One value or none.
    Scalar,
    /// Named values.
    Collection,
}

macro_rules! variables {
    ($($variant:ident $name:literal $shape:ident),* $(,)?) => {
        /// A variable that a rule can look at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub(crate) enum Variable { $($variant),* }

        impl Variable {
            /// Every variable, in the order of its number.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            pub(crate) fn shape(self) -> Shape {
                match self { $(Self::$variant => Shape::$shape),* }
            }
        }
    };
}

variables! {
    Args "ARGS" Collection,
    ArgsNames "ARGS_NAMES" Collection,
    ArgsGet "ARGS_GET" Collection,
    ArgsGetNames "ARGS_GET_NAMES" Collection,
    ArgsPost "ARGS_POST" Collection,
    ArgsPostNames "ARGS_POST_NAMES" Collection,
    ArgsPath "ARGS_PATH" Collection,
    RequestHeaders "REQUEST_HEADERS" Collection,
    RequestHeadersNames "REQUEST_HEADERS_NAMES" Collection,
    RequestCookies "REQUEST_COOKIES" Collection,
    RequestCookiesNames "REQUEST_COOKIES_NAMES" Collection,
    Xml "XML" Collection,
    Files "FILES" Collection,
    FilesNames "FILES_NAMES" Collection,
    FilesSizes "FILES_SIZES" Collection,
    FilesTmpNames "FILES_TMPNAMES" Collection,
    FilesTmpContent "FILES_TMP_CONTENT" Collection,
    MultipartFilename "MULTIPART_FILENAME" Collection,
    MultipartName "MULTIPART_NAME" Collection,
    MultipartPartHeaders "MULTIPART_PART_HEADERS" Collection,
    ResponseHeaders "RESPONSE_HEADERS" Collection,
    ResponseHeadersNames "RESPONSE_HEADERS_NAMES" Collection,
    MatchedVars "MATCHED_VARS" Collection,
    MatchedVarsNames "MATCHED_VARS_NAMES" Collection,
    Tx "TX" Collection,
    Ip "IP" Collection,
    Global "GLOBAL" Collection,
    Session "SESSION" Collection,
    User "USER" Collection,
    Resource "RESOURCE" Collection,
    Env "ENV" Collection,
    Geo "GEO" Collection,
    Rule "RULE" Collection,
    RequestUri "REQUEST_URI" Scalar,
    RequestUriRaw "REQUEST_URI_RAW" Scalar,
    RequestFilename "REQUEST_FILENAME" Scalar,
    RequestBasename "REQUEST_BASENAME" Scalar,
    RequestLine "REQUEST_LINE" Scalar,
    RequestMethod "REQUEST_METHOD" Scalar,
    RequestProtocol "REQUEST_PROTOCOL" Scalar,
    QueryString "QUERY_STRING" Scalar,
    RequestBody "REQUEST_BODY" Scalar,
    RequestBodyLength "REQUEST_BODY_LENGTH" Scalar,
    FullRequest "FULL_REQUEST" Scalar,
    FullRequestLength "FULL_REQUEST_LENGTH" Scalar,
    ArgsCombinedSize "ARGS_COMBINED_SIZE" Scalar,
    FilesCombinedSize "FILES_COMBINED_SIZE" Scalar,
    ReqbodyProcessor "REQBODY_PROCESSOR" Scalar,
    ReqbodyError "REQBODY_ERROR" Scalar,
    ReqbodyErrorMsg "REQBODY_ERROR_MSG" Scalar,
    ReqbodyProcessorError "REQBODY_PROCESSOR_ERROR" Scalar,
    ReqbodyProcessorErrorMsg "REQBODY_PROCESSOR_ERROR_MSG" Scalar,
    UrlencodedError "URLENCODED_ERROR" Scalar,
    InboundDataError "INBOUND_DATA_ERROR" Scalar,
    OutboundDataError "OUTBOUND_DATA_ERROR" Scalar,
    MultipartBoundaryQuoted "MULTIPART_BOUNDARY_QUOTED" Scalar,
    MultipartBoundaryWhitespace "MULTIPART_BOUNDARY_WHITESPACE" Scalar,
    MultipartCrlfLfLines "MULTIPART_CRLF_LF_LINES" Scalar,
    MultipartDataAfter "MULTIPART_DATA_AFTER" Scalar,
    MultipartDataBefore "MULTIPART_DATA_BEFORE" Scalar,
    MultipartFileLimitExceeded "MULTIPART_FILE_LIMIT_EXCEEDED" Scalar,
    MultipartHeaderFolding "MULTIPART_HEADER_FOLDING" Scalar,
    MultipartInvalidHeaderFolding "MULTIPART_INVALID_HEADER_FOLDING" Scalar,
    MultipartInvalidPart "MULTIPART_INVALID_PART" Scalar,
    MultipartInvalidQuoting "MULTIPART_INVALID_QUOTING" Scalar,
    MultipartLfLine "MULTIPART_LF_LINE" Scalar,
    MultipartMissingSemicolon "MULTIPART_MISSING_SEMICOLON" Scalar,
    MultipartSemicolonMissing "MULTIPART_SEMICOLON_MISSING" Scalar,
    MultipartStrictError "MULTIPART_STRICT_ERROR" Scalar,
    MultipartUnmatchedBoundary "MULTIPART_UNMATCHED_BOUNDARY" Scalar,
    RemoteAddr "REMOTE_ADDR" Scalar,
    RemoteHost "REMOTE_HOST" Scalar,
    RemotePort "REMOTE_PORT" Scalar,
    RemoteUser "REMOTE_USER" Scalar,
    ServerAddr "SERVER_ADDR" Scalar,
    ServerName "SERVER_NAME" Scalar,
    ServerPort "SERVER_PORT" Scalar,
    AuthType "AUTH_TYPE" Scalar,
    PathInfo "PATH_INFO" Scalar,
    ResponseBody "RESPONSE_BODY" Scalar,
    ResponseContentLength "RESPONSE_CONTENT_LENGTH" Scalar,
    ResponseContentType "RESPONSE_CONTENT_TYPE" Scalar,
    ResponseProtocol "RESPONSE_PROTOCOL" Scalar,
    ResponseStatus "RESPONSE_STATUS" Scalar,
    StatusLine "STATUS_LINE" Scalar,
    MatchedVar "MATCHED_VAR" Scalar,
    MatchedVarName "MATCHED_VAR_NAME" Scalar,
    HighestSeverity "HIGHEST_SEVERITY" Scalar,
    UniqueId "UNIQUE_ID" Scalar,
    Duration "DURATION" Scalar,
    ModsecBuild "MODSEC_BUILD" Scalar,
    MscPcreError "MSC_PCRE_ERROR" Scalar,
    MscPcreLimitsExceeded "MSC_PCRE_LIMITS_EXCEEDED" Scalar,
    SessionId "SESSIONID" Scalar,
    UserId "USERID" Scalar,
    WebAppId "WEBAPPID" Scalar,
    Time "TIME" Scalar,
    TimeDay "TIME_DAY" Scalar,
    TimeEpoch "TIME_EPOCH" Scalar,
    TimeHour "TIME_HOUR" Scalar,
    TimeMin "TIME_MIN" Scalar,
    TimeMon "TIME_MON" Scalar,
    TimeSec "TIME_SEC" Scalar,
    TimeWday "TIME_WDAY" Scalar,
    TimeYear "TIME_YEAR" Scalar,
}

impl Variable {
    /// Finds a variable by its name in any case.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.iter().copied().find(|variable| name.eq_ignore_ascii_case(variable.name().as_bytes()))
    }

    pub(crate) fn is_collection(self) -> bool {
        self.shape() == Shape::Collection
    }
}
