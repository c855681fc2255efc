"""The sources of one upstream taken together: which are asked, how they fare, what their accounts may."""
