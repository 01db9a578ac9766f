package token

import "testing"

// Cases of the project's list of attacks by their ids, as far as a whole test is about
// one; such a test stands with what it is about. Others are rows of tables, with the id
// in the row's name.
func TestAttackCases(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"AK-014 two keys of one id":                                    testTwoKeysOfOneID,
		"AK-027 AK-028 invented keys and signatures":                   testInventedKeysAndSignaturesHardlyAskTheIssuer,
		"BL-003 CL-002 access and logout tokens in each other's place": testLogoutTokensNeverPassForAccessTokensNorTheOtherWayRound,
		"BL-011 a logout token sent again":                             testAReplayedLogoutTokenSaysTheSame,
		"BL-016 a flood of garbage logouts":                            testAFloodOfGarbageLogoutsHardlyAsksTheIssuer,
		"CL-022 a service account":                                     testARealServiceAccountMeetsOnlyWhatItHas,
		"CL-025 a token checked by another policy":                     testATokenIsCheckedAgainByAnotherPolicy,
		"CL-025 a seen token under another policy":                     testHandlersThatShareWhatTheySawJudgeForThemselves,
		"CL-025 KC-017 a remembered answer under another policy":       testAnswersAreJudgedOnEachRequest,
		"CL-028 organizations in all shapes":                           testATokenNamesItsTenant,
		"CL-028 organizations of a real Keycloak":                      testOrganizationsOfARealKeycloak,
		"CL-030 a revoked token":                                       testARevokedToken,
		"KC-001 down from the start":                                   testTheIssuerIsDownFromTheStart,
		"KC-002 down with known keys":                                  testKnownKeysServeWhileTheIssuerIsDown,
		"KC-003 KC-005 broken and huge answers":                        testABrokenAnswerNeverReplacesGoodKeys,
		"KC-006 a crowd of unknown keys and a slow issuer":             testACrowdOfUnknownKeysDoesNotPileUp,
		"KC-006 one request waits for a slow issuer":                   testOnlyWhoBeginsARefreshWaitsForIt,
		"KC-006 KC-010 who has left takes nobody's place":              testOnlyThoseWhoStillWaitAreCounted,
		"KC-007 KC-009 keys from another origin":                       testNoAnswerFromAnotherOrigin,
		"KC-008 discovery of another issuer":                           testDiscoveryOfAnotherIssuer,
		"KC-010 a rotated key":                                         testARotatedKeyWorksOnItsFirstRequest,
		"KC-011 a withdrawn key":                                       testAWithdrawnKeyStopsWorking,
		"KC-014 more keys than the bound":                              testKeysBeyondTheBoundAreSkipped,
		"KC-015 a flood of unknown keys while the issuer is down":      testAFloodOfUnknownKeysWhileTheIssuerIsDown,
		"KC-017 the answer of a real Keycloak":                         testTheAnswerOfARealKeycloak,
		"KC-017 how long answers are remembered":                       testAnswersAreRememberedForAWhile,
		"KC-017 introspection is down":                                 testAnIssuerThatIsDownIsNotTheTokensFault,
		"KC-020 realm names byte for byte":                             testATenantIsOneSegmentByteForByte,
		"PP-001 PP-003 a seen bound token":                             testASeenBoundTokenIsLookedAtAgainByEachHandler,
		"PP-001 the DPoP token of a real Keycloak":                     testTheDPoPTokenOfARealKeycloak,
		"TM-011 a seen token expires":                                  testASeenTokenIsCheckedOnEachRequest,
		"TM-011 an authenticated token expires":                        testATokenIsCheckedAgainAsTimePasses,
		"TM-012 a clock that steps":                                    testAClockThatStepsBackAndForth,
	} {
		t.Run(name, test)
	}
}
