package tokens_test

import (
	"testing"

	"rouse/tokens"
)

func TestOutletOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		device tokens.Device
		want   tokens.Outlet
	}{
		{tokens.Device{Provider: tokens.APNs, Platform: tokens.IOS, Environment: tokens.Sandbox}, tokens.Outlet{Provider: tokens.APNs, Environment: tokens.Sandbox}},
		{tokens.Device{Provider: tokens.APNs, Platform: tokens.MacOS, Environment: tokens.Production}, tokens.Outlet{Provider: tokens.APNs, Environment: tokens.Production}},
		{tokens.Device{Provider: tokens.FCM, Platform: tokens.Android}, tokens.Outlet{Provider: tokens.FCM}},
		{tokens.Device{Provider: tokens.FCM, Platform: tokens.Other}, tokens.Outlet{Provider: tokens.FCM}},
		{tokens.Device{Provider: tokens.FCM, Platform: tokens.IOS}, tokens.Outlet{Provider: tokens.FCM, Onward: tokens.OnwardApple}},
		{tokens.Device{Provider: tokens.FCM, Platform: tokens.MacOS}, tokens.Outlet{Provider: tokens.FCM, Onward: tokens.OnwardApple}},
		{tokens.Device{Provider: tokens.FCM, Platform: tokens.Web}, tokens.Outlet{Provider: tokens.FCM, Onward: tokens.OnwardWeb}},
	} {
		c.device.App, c.want.App = "app_1", "app_1"
		if got := tokens.OutletOf(c.device); got != c.want {
			t.Errorf("%s on %s goes through %+v, want %+v", c.device.Provider, c.device.Platform, got, c.want)
		}
	}
}

func TestOtherEnvironment(t *testing.T) {
	t.Parallel()
	if tokens.Production.Other() != tokens.Sandbox || tokens.Sandbox.Other() != tokens.Production {
		t.Error("neither is the other's other")
	}
}
